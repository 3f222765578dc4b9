"""Global batches: which rows of a view make up each optimiser step, whatever the number of processes.

Both functions are pure, so every process computes the same batches without talking to the others, and the state of
the data pipeline is one number, the index of the next batch.
"""

from __future__ import annotations

import hashlib
from heapq import heapreplace

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cache.canonical import canonical
from cache.views import CacheView

Rows = NDArray[np.int64]


def global_batches(
    view: CacheView, *, seed: int, epoch: int, tokens_per_batch: int, rows: Rows | None = None
) -> tuple[Rows, ...]:
    """The batches of one epoch, as positions in the view: each row once, at most `tokens_per_batch` tokens a batch.

    `rows` are the positions that the epoch reads; all of them unless it is said.

    A row longer than the budget is a batch of its own; the last batch may be short. The order depends on the keys of
    the view, the seed and the epoch alone: two caches that were filled with the same rows give the same batches.
    """
    keys = hashlib.sha256(view.keys.tobytes()).digest()
    read = np.arange(len(view)) if rows is None else rows
    order = read[permutation(len(read), name=canonical("stillroom/epoch/2", keys, int(seed), int(epoch)))]
    ends = np.cumsum(view.lengths[order], dtype=np.int64)
    cuts = []
    start, spent = 0, 0
    while start < len(order):
        start = max(int(np.searchsorted(ends, spent + tokens_per_batch, side="right")), start + 1)
        spent = int(ends[start - 1])
        cuts.append(start)
    return tuple(np.split(order, cuts[:-1])) if cuts else ()


def rank_shares(batch: Rows, *, lengths: Int[np.ndarray, " R"], world_size: int) -> tuple[Rows, ...]:
    """The rows of a global batch that each rank takes: a partition of the batch, balanced by tokens.

    The longest row goes first, each to the rank with the fewest tokens so far (the lowest rank among equals); a rank
    may get none. `lengths` are the token counts of all rows of the view. Shares keep the order of the batch.
    """
    sizes = np.asarray(lengths)[batch].astype(np.int64)
    owner = np.empty(len(batch), dtype=np.int64)
    loads = [(0, rank) for rank in range(world_size)]
    for position in np.argsort(-sizes, kind="stable").tolist():
        load, rank = loads[0]
        owner[position] = rank
        heapreplace(loads, (load + int(sizes[position]), rank))
    ends = np.cumsum(np.bincount(owner, minlength=world_size))
    return tuple(np.split(batch[np.argsort(owner, kind="stable")], ends[:-1]))


def permutation(count: int, *, name: bytes) -> Rows:
    """A permutation that follows from `name` alone.

    The raw stream of a bit generator is fixed for good, unlike `Generator.permutation`, which may change with numpy.
    """
    seed = int.from_bytes(hashlib.sha256(name).digest(), "little")
    drawn = np.random.PCG64(seed).random_raw(count)
    return np.argsort(np.atleast_1d(drawn), kind="stable").astype(np.int64)
