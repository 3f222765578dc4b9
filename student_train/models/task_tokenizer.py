"""The tokenizer of a task student, and what a task asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from configs.errors import ModelError
from configs.visible_text import first_line


def load_task_tokenizer(model_dir: Path) -> Any:
    """The fast tokenizer in a directory, padding on the right; without a padding token it pads with the one of the end.

    Raises:
        ModelError: there is none, it does not say where its tokens lie, or it has nothing to pad with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_dir, trust_remote_code=False, local_files_only=True, padding_side="right"
        )
    # Each tokenizer has a parser of its own, which may die of anything that it does not expect.
    except Exception as error:
        raise ModelError(
            f"{model_dir}: its tokenizer does not load ({first_line(error)}): save it there with a tokenizer.json"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{model_dir}: its tokenizer does not say where its tokens lie: save it with a tokenizer.json")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"{model_dir}: its tokenizer has neither pad_token nor eos_token: set pad_token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def require_pairs(tokenizer: Any, model_dir: Path) -> None:
    """Make sure that two texts can be told apart in one row.

    Raises:
        ModelError: no special token is put between them.
    """
    ids = tokenizer("a", "a", return_special_tokens_mask=True)["special_tokens_mask"]
    if 1 not in ids[ids.index(0) : len(ids) - ids[::-1].index(0)]:
        raise ModelError(
            f"{model_dir}: its tokenizer puts no special token between two texts, which a task of pairs needs: name a "
            "model whose tokenizer does (an encoder like BERT), or give its tokenizer.json a template for pairs"
        )
