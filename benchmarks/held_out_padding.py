"""What a model computes in vain when held-out rows are scored: a row each in their order, and laid out as they are.

Nothing is timed: tokens are counted, those of padding among them. Lengths are ragged as answers are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.measurement import Measurement, at_most
from student_train.feed.packing import lay_out, padded_tokens

ROWS, BATCH_TOKENS, LARGEST = 1_000, (4_096, 8_192), 1.1


def bench_held_out_padding() -> Iterator[Measurement]:
    """Tokens computed for one that is read: with a row for each, packed, and in buckets of like length."""
    lengths = np.clip(np.random.default_rng(0).lognormal(5.0, 0.8, size=ROWS), 8, 2_000).astype(np.int64)
    for tokens in BATCH_TOKENS:
        # Cut as `student_train.feed.steps.held_out_batches` cuts them.
        ends = np.cumsum(lengths)
        parts = [part for part in np.split(lengths, np.flatnonzero(np.diff(ends // tokens)) + 1) if len(part)]
        padded = sum(len(part) * int(part.max()) for part in parts) / float(lengths.sum())
        packed, buckets = (
            sum(padded_tokens(lay_out(part, tokens=tokens, packs=packs), part) for part in parts) / float(lengths.sum())
            for packs in (True, False)
        )
        name, peers = f"held-out rows, {tokens:,} tokens a batch", {"a row for each, in their order": padded}
        yield at_most(f"{name}, packed: tokens computed for one read", packed, LARGEST, peers=peers)
        yield at_most(f"{name}, in buckets: tokens computed for one read", buckets, LARGEST, peers=peers)
