"""What it costs to deal a step out: which process takes which rows, and how the rows of all of them are laid out.

Every process computes it for all, so that nobody has to ask. It should cost the same however many there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from cache.batches import rank_shares
from student_train.feed.packing import lay_out

ROWS, RANKS, REPEATS = 3_500, (1, 8, 64, 512), 5
MICRO_BATCH_TOKENS = 8_192


def bench_dealing() -> Iterator[str]:
    """One line a way to lay rows out: the milliseconds of a step, and how they grow with the number of processes."""
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 0.6, size=ROWS), 20, 2048).astype(np.int64)
    for packs in (True, False):
        least = [min(_seconds(lengths, ranks=ranks, packs=packs) for _ in range(REPEATS)) for ranks in RANKS]
        each = ", ".join(
            f"{ranks} {1e3 * seconds:.1f} ms ({seconds / least[0]:.2f})"
            for ranks, seconds in zip(RANKS, least, strict=True)
        )
        yield f"dealing out {ROWS:,} rows, {'packed' if packs else 'a row each'}, to so many processes: {each}"


def _seconds(lengths: np.ndarray, *, ranks: int, packs: bool) -> float:
    begun = time.process_time()
    for share in rank_shares(np.arange(ROWS), lengths=lengths, world_size=ranks):
        lay_out(lengths[share] - 1, tokens=MICRO_BATCH_TOKENS, packs=packs)
    return time.process_time() - begun
