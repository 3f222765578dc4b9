"""Shuffled reads of a cache view as float32 batches.

Measured beside a raw int32 + float16 memory map gathered and upcast the same way, and beside one zarr-python slice a
sequence, decoded the same way. The batches are those that a trainer would get: so many tokens, from anywhere.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks.measurement import Measurement, at_least
from benchmarks.synthetic import PROMPT, TEACHER, Rows, zipf_rows
from benchmarks.timing import ROUNDS, best_seconds
from cache import CacheView, TeacherCache
from cache.disk.columns import IDS_BY_RANK, RANKS

ROWS, K, VOCAB = 131_072, 64, 49_152
"""Rows as many as one commit of a fill has."""

BATCH_ROWS = 4096
ZARR_SEQUENCES = 32
"""Sequences read through zarr-python, of which one takes milliseconds."""

PREFETCH = 2
"""Batches read ahead, as a trainer has them read."""

CONSUMER_TOKENS = 500_000
"""Tokens a second that a trainer may take from one process."""

Order = list[NDArray[np.int64]]


def bench_cache_reads() -> Iterator[Measurement]:
    """Ratios for short and for long sequences, then tokens a second from one process."""
    rows = zipf_rows(rows=ROWS, k=K, vocab=VOCAB)
    for length in (64, 512):
        with tempfile.TemporaryDirectory() as directory:
            yield from _bench(Path(directory), rows, length=length)


def _bench(root: Path, rows: Rows, *, length: int) -> Iterator[Measurement]:
    cache = TeacherCache.open(root / "cache", TEACHER)
    records = rows.records(length)
    report = cache.put(records, vocab=VOCAB)
    assert report is not None
    view = cache.view([record.key for record in records], dataset="bench", k=K)
    ids, logprobs = _memory_maps(root, rows, length=length)
    order = np.split(np.random.default_rng(1).permutation(len(records)), ROWS // BATCH_ROWS)
    # The first epoch of a process also reads, hashes, expands and decodes every chunk once.
    fresh = [TeacherCache.open(root / "cache", TEACHER) for _ in range(2 * (ROUNDS + 1))]

    def read_maps() -> None:
        for batch in order:
            np.asarray(ids[batch])
            logprobs[batch].astype(np.float32)

    seconds = best_seconds(
        {
            "memory map": read_maps,
            "first epoch": lambda: _read(fresh.pop(), view, order, prefetch=PREFETCH),
            "epoch": lambda: _read(cache, view, order, prefetch=PREFETCH),
            "first epoch, when asked": lambda: _read(fresh.pop(), view, order),
            "epoch, when asked": lambda: _read(cache, view, order),
        }
    )
    name = f"shuffled reads, {length} rows a sequence"
    slices = _zarr_seconds(root / "cache" / TEACHER.digest() / "segments" / report.uuid, length=length) * 1e9
    row = {contender: taken / ROWS * 1e9 for contender, taken in seconds.items()}
    peers = {"memory map": row["memory map"], "zarr-python slices": slices}
    yield Measurement(f"{name}, a row of an epoch", row["epoch"], "ns", digits=0, peers=peers)
    for epoch, told, target in (("epoch", "epoch", 1.0), ("first epoch", "first epoch of a process", 0.5)):
        ratio, when_asked = (row["memory map"] / row[contender] for contender in (epoch, f"{epoch}, when asked"))
        yield at_least(f"{name}, {told} / memory map", ratio, target, peers={"not read ahead": when_asked})
    yield at_least(f"{name}, epoch / zarr-python slices", slices / row["epoch"], 15, digits=0)
    tokens = len(records) * (PROMPT + length) / _consumed(root, view, order)
    yield at_least(f"{name}, one process feeds", tokens / 1e6, CONSUMER_TOKENS / 1e6, unit="M tokens/s")


def _read(cache: TeacherCache, view: CacheView, order: Order, *, prefetch: int = 0) -> None:
    for batch in cache.iter_batches(view, order, prefetch=prefetch):
        assert batch.topk_logprobs is not None


def _consumed(root: Path, view: CacheView, order: Order) -> float:
    """Seconds of a first epoch in which every batch is looked at, as collation would."""
    cache = TeacherCache.open(root / "cache", TEACHER)
    started = time.perf_counter()
    for batch in cache.iter_batches(view, order, prefetch=PREFETCH):
        assert batch.topk_logprobs is not None
        np.asarray(batch.topk_ids.astype(np.int64)), batch.topk_logprobs.sum()
    return time.perf_counter() - started


def _zarr_seconds(segment: Path, *, length: int) -> float:
    """Seconds a row of one slice a sequence and array through zarr-python, at best of several rounds."""
    group: Any = zarr.open_group(segment, mode="r")
    ranks, table = group[RANKS], group[IDS_BY_RANK][:]
    steps, tail = group["topk_dq"], group["tail_logmass"]
    starts = np.random.default_rng(2).integers(0, ROWS // length, size=ZARR_SEQUENCES) * length

    def read() -> None:
        for start in starts.tolist():
            rows = slice(start, start + length)
            table[ranks[rows]]
            logprobs = np.cumsum(steps[rows], axis=1, dtype=np.uint8).astype(np.float32) / -16
            logprobs += np.log(-np.expm1(tail[rows]) / np.exp(logprobs).sum(axis=1))[:, None]

    return best_seconds({"zarr": read}, rounds=2)["zarr"] / (ZARR_SEQUENCES * length)


def _memory_maps(root: Path, rows: Rows, *, length: int) -> tuple[np.memmap, np.memmap]:
    shape = (ROWS // length, length, K)
    ids = np.memmap(root / "ids", dtype=np.int32, mode="w+", shape=shape)
    logprobs = np.memmap(root / "logprobs", dtype=np.float16, mode="w+", shape=shape)
    ids[:], logprobs[:] = rows.ids.reshape(shape), rows.logprobs.reshape(shape)
    return ids, logprobs
