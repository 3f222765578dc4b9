"""Many texts to tokens: on all cores, and with one object for each token however often it occurs.

A Python integer takes 28 bytes and a place in a tuple 8, so tuples whose integers are shared take a quarter of the
memory of others. That decides how many rows a plan or a run can hold.
"""

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

_SHARED: list[int] = []
"""Every token that was seen, at its own place; it grows to the size of the largest vocabulary."""


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
        return [shared(ids) for ids in told]
    others = tokenizer.backend_tokenizer.encode_batch_fast(texts[1:], add_special_tokens=add_special_tokens)
    return [shared(told[0]), *(shared(each.ids) for each in others)]


def shared(ids: Sequence[int]) -> Ids:
    """The same tokens, each the one object that stands for it everywhere."""
    most = max(ids, default=-1)
    if most >= len(_SHARED):
        _SHARED.extend(range(len(_SHARED), most + 1))
    return tuple(map(_SHARED.__getitem__, ids))


def _has_own_way(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is not the library's, or does more to a text than to hand it to the library."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    return not (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and kind.__call__ is PreTrainedTokenizerFast.__call__
        and kind._encode_plus is PreTrainedTokenizerFast._encode_plus
    )
