"""The engine's flat log-probability containers as numpy rows.

A flat container holds, for every position, the token that really came first and then the K best tokens by descending
log-probability: a constant stride of K + 1. The token that really came may appear twice (alone and among the K
best), so entries are read by their place in the row and never by their rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int32

from configs.errors import EngineError

SPARE_IDS = 32
"""Log-probabilities asked for beyond k when the model's matrix has more rows than the tokenizer has ids.

Those rows were never trained to be likely, so a handful among the best is already rare; a row with more than this
many becomes a `Failure` instead of a short or wrong row.
"""


class FlatContainer(Protocol):
    """The part of `vllm.logprobs.FlatLogprobs` that is read here."""

    start_indices: list[int]
    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int | None]


@dataclass(frozen=True, slots=True, eq=False)
class TopkRows:
    """Log-probabilities of S positions, in nats, as in `TeacherRecord`.

    The rank of a target far outside the head may count ids that the tokenizer does not know: the engine gives their
    number, not their names.
    """

    topk_ids: Int32[np.ndarray, "S K"]
    topk_logprobs: Float32[np.ndarray, "S K"]
    target_logprobs: Float32[np.ndarray, " S"]
    target_ranks: Int32[np.ndarray, " S"]


def wanted_ids(k: int, *, vocab: int, matrix_rows: int) -> int:
    """Log-probabilities to ask an engine for, so that `k` of ids below `vocab` are among them; 0 for none.

    Near the whole vocabulary only asking for every row of the model's matrix is enough.
    """
    beyond = matrix_rows - vocab
    if k == 0:
        return 0
    return k + (beyond if k + SPARE_IDS >= vocab else min(beyond, SPARE_IDS))


def topk_rows(
    flat: FlatContainer, *, targets: Int32[np.ndarray, " S"], k: int, vocab: int, first: int = 0
) -> TopkRows | None:
    """Rows of the positions from `first` on, or None when a row has fewer than `k` ids below `vocab`.

    A model's matrix may have more rows than its tokenizer has ids. Ids from `vocab` on are dropped here, so their
    mass falls into the tail; the engine has to be asked for a few more than `k` to make up for them.

    Args:
        flat: The container, one entry a position.
        targets: The tokens that really came at these positions.
        k: K, the number of log-probabilities to keep.
        vocab: V, the number of ids the tokenizer knows.
        first: The first position that is read; earlier ones (a prompt) are skipped.

    Raises:
        EngineError: the container does not have the layout described above.
    """
    offset, stride = _layout(flat, first=first, rows=len(targets), k=k)
    ids = np.array(flat.token_ids[offset:], dtype=np.int32).reshape(-1, stride)
    logprobs = np.array(flat.logprobs[offset:], dtype=np.float32).reshape(-1, stride)
    ranks = np.array(flat.ranks[offset::stride], dtype=np.int32)
    if not np.array_equal(ids[:, 0], targets):
        raise EngineError("the engine's log-probability rows do not belong to the tokens it returned")
    target_logprobs = np.ascontiguousarray(logprobs[:, 0])
    head_ids, head_logprobs = ids[:, 1:], logprobs[:, 1:]
    known = head_ids < vocab
    if not known.all():
        ranks -= (~known & (head_logprobs > target_logprobs[:, None])).sum(axis=1, dtype=np.int32)
        order = _known_first(known, k=k)
        if order is None:
            return None
        head_ids = np.take_along_axis(head_ids, order, axis=1)
        head_logprobs = np.take_along_axis(head_logprobs, order, axis=1)
    return TopkRows(
        topk_ids=np.ascontiguousarray(head_ids[:, :k]),
        topk_logprobs=np.ascontiguousarray(head_logprobs[:, :k]),
        target_logprobs=target_logprobs,
        target_ranks=ranks,
    )


def _layout(flat: FlatContainer, *, first: int, rows: int, k: int) -> tuple[int, int]:
    positions = len(flat.start_indices)
    if rows == 0 or positions - first != rows:
        raise EngineError(f"the engine returned {positions - first} rows of log-probabilities for {rows} tokens")
    offset = flat.start_indices[first]
    stride, rest = divmod(len(flat.token_ids) - offset, rows)
    if rest or stride < k + 1 or flat.start_indices[-1] != offset + (rows - 1) * stride:
        raise EngineError(f"the engine's log-probability rows are not of one length of at least {k + 1}")
    return offset, stride


def _known_first(known: Bool[np.ndarray, "S M"], *, k: int) -> Int32[np.ndarray, "S M"] | None:
    """For every row the columns of the known ids, in their order, before the others."""
    if int(known.sum(axis=1).min()) < k:
        return None
    return np.argsort(~known, axis=1, kind="stable").astype(np.int32)
