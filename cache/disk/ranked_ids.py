"""Token ids of a segment as ranks: how often each id occurs in it decides its number, the most frequent first.

Teachers name few of their tokens again and again. By rank most ids fit into few bits, in 16 of them instead of 32, so
that they compress better and expand faster: on answers of SmolLM2-135M 101 bytes a row instead of 117 at K = 64, and
100 ns instead of 125 (docs/log.md). A table takes ranks back to ids.

Shapes: N rows, K entries a row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int32, UInt16
from numpy.typing import NDArray

from cache.disk.columns import IDS_BY_RANK, RANKS, TABLE, Columns, SegmentSize

LEAST_ENTRIES, LEAST_USES = 2**16, 16
"""Of a segment, and for each id that occurs: with fewer the table is longer than what is saved."""

LARGEST_ID = 2**20
"""What is counted takes as much memory as the largest id; no tokenizer has so many."""


def by_rank(columns: Columns, size: SegmentSize) -> tuple[Columns, SegmentSize]:
    """The columns of a segment with ranks and their table in the place of ids, where that is smaller."""
    if "topk_ids" not in columns or size.encoding not in ("topk-u8", "topk-f16"):
        return columns, size
    ids = columns["topk_ids"].astype(np.int64)
    if ids.size < LEAST_ENTRIES or ids.max() > LARGEST_ID:
        return columns, size
    counts = np.bincount(ids.ravel())
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    # The last number is left out, with which a chunk is filled up.
    if len(order) >= TABLE or ids.size < LEAST_USES * len(order):
        return columns, size
    table = np.full(TABLE, -1, dtype="<i4")
    table[: len(order)] = order
    ranks = np.zeros(len(counts), dtype="<u2")
    ranks[order] = np.arange(len(order))
    others = {name: column for name, column in columns.items() if name != "topk_ids"}
    return others | {RANKS: ranks.take(ids), IDS_BY_RANK: table}, replace(size, ranked=True)


def ids_of(ranks: UInt16[np.ndarray, "N K"], table: NDArray[np.int32]) -> Int32[np.ndarray, "N K"]:
    """The ids that these ranks stand for."""
    # Every number of 16 bits stands in the table; not to check that is a third faster.
    return table.take(ranks, mode="wrap")
