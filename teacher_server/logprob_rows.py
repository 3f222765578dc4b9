"""An engine's log-probabilities as rows of a record.

For every position an engine gives the token that really came first and then the K best tokens by descending
log-probability: rows of one length, K + 1. The token that really came may appear twice (alone and among the K best), so
entries are read by their place in the row and never by their rank.

Engines hand them over in containers of two kinds (`flat_logprobs`, `engine_arrays`); either gives its rows as a block.
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


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Rows as the engine gives them, M = 1 + the number of log-probabilities it was asked for.

    Column 0 is the token that really came, whose ranks are counted from 1 over all rows of the model's matrix. The
    arrays may be read-only.
    """

    ids: Int32[np.ndarray, "S M"]
    logprobs: Float32[np.ndarray, "S M"]
    ranks: Int32[np.ndarray, " S"]


class LogprobRows(Protocol):
    """What holds an engine's rows of one sequence."""

    def block(self, *, first: int) -> RowBlock:
        """The rows of all positions from `first` on.

        Raises:
            EngineError: they are not of one length.
        """
        ...


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
    rows: LogprobRows, *, targets: Int32[np.ndarray, " S"], k: int, vocab: int, first: int = 0
) -> TopkRows | None:
    """Rows of the positions from `first` on, or None when a row has fewer than `k` ids below `vocab`.

    A model's matrix may have more rows than its tokenizer has ids. Ids from `vocab` on are dropped here, so their
    mass falls into the tail; the engine has to be asked for a few more than `k` to make up for them.

    Args:
        rows: What the engine gave, one row a position.
        targets: The tokens that really came at these positions.
        k: K, the number of log-probabilities to keep.
        vocab: V, the number of ids the tokenizer knows.
        first: The first position that is read; earlier ones (a prompt) are skipped.

    Raises:
        EngineError: the rows are not those described above.
    """
    block = rows.block(first=first)
    _require_rows_of(block, targets=targets, k=k)
    target_logprobs, ranks = block.logprobs[:, 0].copy(), block.ranks.copy()
    head_ids, head_logprobs = block.ids[:, 1:], block.logprobs[:, 1:]
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


def _require_rows_of(block: RowBlock, *, targets: Int32[np.ndarray, " S"], k: int) -> None:
    rows, width = block.ids.shape
    if rows != len(targets):
        raise EngineError(f"the engine returned {rows} rows of log-probabilities for {len(targets)} tokens")
    if width < k + 1:
        raise EngineError(f"the engine's log-probability rows have {width} entries, not {k + 1} or more")
    if not np.array_equal(block.ids[:, 0], targets):
        raise EngineError("the engine's log-probability rows do not belong to the tokens it returned")


def _known_first(known: Bool[np.ndarray, "S M"], *, k: int) -> Int32[np.ndarray, "S M"] | None:
    """For every row the columns of the known ids, in their order, before the others."""
    if int(known.sum(axis=1).min()) < k:
        return None
    return np.argsort(~known, axis=1, kind="stable").astype(np.int32)
