"""What it costs to deal a step out: which process takes which rows, and how the rows of all of them are laid out.

Every process computes it for all, so that nobody has to ask. It should cost the same however many there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.measurement import Measurement, at_most
from benchmarks.timing import best_seconds
from cache.batches import rank_shares
from student_train.feed.packing import lay_out

ROWS, RANKS, REPEATS = 3_500, (1, 8, 64, 512), 5
MICRO_BATCH_TOKENS = 8_192
LARGEST_MS = 50.0
"""For the largest number of processes."""


def bench_dealing() -> Iterator[Measurement]:
    """The processor time of a step for each way to lay rows out and number of processes."""
    lengths = step_lengths()
    for packs in (True, False):
        least = [dealt_seconds(lengths, ranks=ranks, packs=packs) for ranks in RANKS]
        name = f"dealing out {ROWS:,} rows, {'packed' if packs else 'a row each'}"
        *fewer, most = (f"{name}, to {ranks} process{'es' if ranks > 1 else ''}" for ranks in RANKS)
        for what, seconds in zip(fewer, least, strict=False):
            yield Measurement(what, 1e3 * seconds, "ms", digits=1)
        yield at_most(most, 1e3 * least[-1], LARGEST_MS, unit="ms", digits=1)


def step_lengths() -> NDArray[np.int64]:
    """Tokens of each row of a step, as conversations have them."""
    return np.clip(np.random.default_rng(0).lognormal(5.5, 0.6, size=ROWS), 20, 2048).astype(np.int64)


def dealt_seconds(lengths: NDArray[np.int64], *, ranks: int, packs: bool) -> float:
    """Processor time in which a step is dealt out to so many processes, and the rows of all are laid out."""

    def deal() -> None:
        for share in rank_shares(np.arange(len(lengths)), lengths=lengths, world_size=ranks):
            lay_out(lengths[share] - 1, tokens=MICRO_BATCH_TOKENS, packs=packs)

    return best_seconds({"deal": deal}, rounds=REPEATS, clock=time.process_time)["deal"]
