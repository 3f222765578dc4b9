"""What a model says of its task head (classes, tags, spans) without being loaded, and how much of a text it reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from configs.model_files import read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HeadKind = Literal["classification", "tagging", "extractive_qa"]

HEADS: dict[str, HeadKind] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "extractive_qa",
}
"""What a model does whose class, in the `architectures` of its config.json, ends like this."""

RESERVED_POSITIONS = 2
"""RoBERTa and its kin count positions from 2 on; others lose two tokens of a long text by it."""


def head_of(model_dir: Path) -> HeadKind | None:
    """The task head of a model, by the `architectures` of its config.json; None where it has none.

    Raises:
        ModelError: there is no config.json that can be read.
    """
    classes = read_config(model_dir).get("architectures")
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    found = (kind for name in names for ending, kind in HEADS.items() if name.endswith(ending))
    return next(found, None)


def longest_sequence(positions: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest sequence that a model of so many positions reads, special ones included."""
    stated = int(tokenizer.model_max_length)
    return min(stated, positions - RESERVED_POSITIONS) if stated > positions else stated
