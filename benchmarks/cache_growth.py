"""A cache that grows to ten million records: what opening it takes, and whether a read costs more.

The records are made up (one response token, K = 8, each the answer of a generation) and written in bulk, column by
column. What is read is a data set of the size that an experiment has, first from a small cache and then from a large
one; the keys that are looked up come from everywhere.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measurement import Measurement, at_most
from benchmarks.synthetic import TEACHER, zipf_rows
from cache import TeacherCache
from cache.disk.columns import SegmentSize, rows_per_chunk, segment_columns, zarr_objects
from cache.disk.key_objects import ENTRY, GENERATION, KEY, Table, key_bytes, pack_keys
from cache.disk.packing import PackedSegment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.roots import open_storage
from cache.keys import KEY_BYTES

RECORDS = (100_000, 1_000_000, 10_000_000)
SEGMENT_ROWS, K, VOCAB = 100_000, 8, 49_152
LOOKUPS, BATCH_ROWS, EPOCHS = 20_000, 4096, 3
LARGEST_OPEN_S, LARGEST_OPEN_GB = 5.0, 2.0
LARGEST_GROWTH = 2.0
"""A read from the largest cache may cost this many times one from the smallest: flat, but for noise."""


def bench_cache_growth(*, records: tuple[int, ...] = RECORDS) -> Iterator[Measurement]:
    """Costs at each size, then how the last compares with the first, then opening the last in a process of its own."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        costs: list[tuple[float, float]] = []
        for count, keys in zip(records, growing_cache(root, records=records, rng=rng), strict=True):
            costs.append(_costs(root, keys, rng=rng))
            look, read = costs[-1]
            yield Measurement(f"cache of {count:,} records, a lookup by key", look * 1e6, "us", digits=1)
            yield Measurement(f"cache of {count:,} records, a row of an epoch", read * 1e6, "us")
        name = f"cache of {records[-1]:,} records"
        yield at_most(f"{name}, a row of an epoch / at {records[0]:,}", costs[-1][1] / costs[0][1], LARGEST_GROWTH)
        # A process of its own, so that the memory of this one does not count.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, gigabytes = pool.submit(_open, root).result()
    yield at_most(f"{name}, opening", seconds, LARGEST_OPEN_S, unit="s")
    yield at_most(f"{name}, peak memory of a process that opens them", gigabytes, LARGEST_OPEN_GB, unit="GB")


def growing_cache(root: Path, *, records: Sequence[int], rng: np.random.Generator) -> Iterator[list[Table]]:
    """The keys of each segment of a cache that has so many records, then of the same cache with more."""
    TeacherCache.open(root, TEACHER)
    columns, size = _columns()
    objects = zarr_objects(columns, size=size)
    keys: list[Table] = []
    for count in records:
        while len(keys) * SEGMENT_ROWS < count:
            keys.append(_write(root, objects, size=size, rng=rng))
        yield keys


def _columns() -> tuple[dict[str, NDArray[np.generic]], SegmentSize]:
    """The arrays of one segment, which all segments share: it is their keys that grow."""
    rows = zipf_rows(rows=SEGMENT_ROWS, k=K, vocab=VOCAB)
    size = SegmentSize(
        rows=SEGMENT_ROWS,
        scored_rows=SEGMENT_ROWS,
        tokens=2 * SEGMENT_ROWS,
        k=K,
        chunk_rows=rows_per_chunk(SEGMENT_ROWS, k=K),
        encoding="topk-u8",
    )
    one = segment_columns([rows.record(slice(0, SEGMENT_ROWS), rng=np.random.default_rng(1))], encoding="topk-u8")
    count = np.arange(SEGMENT_ROWS + 1, dtype="<i8")
    ones = np.ones(SEGMENT_ROWS)
    return one | {
        "token_ids": np.random.default_rng(2).integers(3, VOCAB, size=size.tokens).astype("<i4"),
        "token_offsets": 2 * count,
        "row_offsets": count,
        "prompt_len": ones.astype("<i4"),
        "finish": ones.astype("u1"),
        "origin": 0 * ones.astype("u1"),
        "policy_version": -ones.astype("<i8"),
        "k": (K * ones).astype("<i4"),
    }, size


def _write(root: Path, objects: dict[str, bytes], *, size: SegmentSize, rng: np.random.Generator) -> Table:
    """Write one more segment, and return its keys."""
    keys, answers = (np.frombuffer(rng.bytes(KEY_BYTES * size.rows), dtype=KEY) for _ in range(2))
    entries, generations = np.zeros(size.rows, dtype=ENTRY), np.zeros(size.rows, dtype=GENERATION)
    entries["row"], entries["k"], entries["length"], entries["prompt_len"] = np.arange(size.rows), K, 2, 1
    generations["key"], generations["sequence"] = answers, keys
    generations["response_len"] = generations["max_new_tokens"] = 1
    entries["finish"] = generations["finish"] = 1
    packed = PackedSegment(
        objects=objects,
        keys=pack_keys(keys, entries, generations),
        size=size,
        response_tokens=size.rows,
        generations=size.rows,
    )
    staging = Staging(open_storage(root, TEACHER.digest(), create=False))
    staging.publish(packed, SegmentTerms(identity=TEACHER.digest(), vocab=VOCAB, provenance={}, licence=None))
    staging.drop()
    return keys


def _costs(root: Path, keys: list[Table], *, rng: np.random.Generator) -> tuple[float, float]:
    """Seconds of a lookup by key, and of a row of a shuffled epoch over one data set, each at best of several."""
    cache = TeacherCache.open(root, TEACHER)
    wanted = key_bytes(np.concatenate([part[rng.integers(0, len(part), LOOKUPS // len(keys))] for part in keys]))
    dataset = key_bytes(keys[int(rng.integers(0, len(keys)))])
    view = cache.view(dataset, dataset="bench", k=K)
    order = np.split(rng.permutation(len(view)), np.arange(BATCH_ROWS, len(view), BATCH_ROWS))
    looks, reads = [], []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        found = cache.get_many(wanted, k=0)
        looks.append((time.perf_counter() - started) / len(found))
        started = time.perf_counter()
        rows = sum(len(batch) for batch in cache.iter_batches(view, order))
        reads.append((time.perf_counter() - started) / rows)
    assert None not in found
    return min(looks), min(reads)


def _open(root: Path) -> tuple[float, float]:
    """Seconds to open the cache, and this process's peak memory in GB."""
    started = time.perf_counter()
    cache = TeacherCache.open(root, TEACHER)
    seconds = time.perf_counter() - started
    assert cache.stats().segments
    # Not getrusage, whose peak a process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds, int(peak.split()[1]) / 1e6
