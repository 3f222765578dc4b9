"""Many texts to tokens, on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

PARALLEL = "TOKENIZERS_PARALLELISM"
"""Read by the tokenizers library whenever it encodes a batch."""


@contextmanager
def tokenizing_on_all_cores() -> Iterator[None]:
    """Let the tokenizers library use its threads as long as this lasts.

    Not longer: a process that forked with it set would wait for threads that it does not have.
    """
    before = os.environ.get(PARALLEL)
    os.environ[PARALLEL] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLEL]
        else:
            os.environ[PARALLEL] = before


def tokens_of_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool) -> list[Ids]:
    """The tokens of each text.

    The first one goes through transformers, which sets the library up (nothing is cut or padded); the others go to the
    library as it then is, without the places of their characters, which takes two thirds of the time.
    """
    through = len(texts) if _has_own_way(tokenizer) else 1
    first = [*texts[:through]]
    if not first:
        return []
    told = tokenizer(first, add_special_tokens=add_special_tokens, return_attention_mask=False)["input_ids"]
    if through == len(texts):
        return [tuple(ids) for ids in told]
    others = tokenizer.backend_tokenizer.encode_batch_fast(texts[1:], add_special_tokens=add_special_tokens)
    return [tuple(told[0]), *(tuple(each.ids) for each in others)]


def _has_own_way(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is not the library's, or does more to a text than to hand it to the library."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    return not (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and kind.__call__ is PreTrainedTokenizerFast.__call__
        and kind._encode_plus is PreTrainedTokenizerFast._encode_plus
    )
