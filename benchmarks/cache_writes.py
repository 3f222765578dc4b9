"""Writing records, all included (validation, hashing, packing, fsync, manifest), against bare compression.

The bare contender compresses the same columns with the same codec in the same chunks and writes them to plain files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from benchmarks.measurement import Measurement, at_least
from benchmarks.synthetic import TEACHER, zipf_rows
from benchmarks.timing import best_seconds
from cache import TeacherCache, TeacherRecord
from cache.disk.columns import SegmentSize, layouts, rows_per_chunk, segment_columns
from cache.disk.encoding import Encoding
from cache.disk.shards import COMPRESSION_LEVEL

ROWS, K, VOCAB = 131_072, 64, 49_152
"""Rows as many as one commit of a fill has."""

ENCODING: Encoding = "topk-u8"


def bench_cache_writes() -> Iterator[Measurement]:
    """The ratio for short and for long sequences."""
    rows = zipf_rows(rows=ROWS, k=K, vocab=VOCAB)
    for length in (64, 512):
        with tempfile.TemporaryDirectory() as directory:
            seconds = _seconds(Path(directory), rows.records(length))
        name = f"writing, {length} rows a sequence"
        rates = {contender: ROWS / taken / 1e6 for contender, taken in seconds.items()}
        yield Measurement(name, rates["cache"], "M rows/s", peers={"bare compression": rates["bare"]})
        yield at_least(f"{name}, cache / bare compression", seconds["bare"] / seconds["cache"], 0.25)


def _seconds(root: Path, records: Sequence[TeacherRecord]) -> dict[str, float]:
    chunks = _chunks(records)
    cache = TeacherCache.open(root / "cache", TEACHER)
    codec = Blosc("zstd", COMPRESSION_LEVEL, Blosc.BITSHUFFLE)
    (root / "bare").mkdir()

    def bare() -> None:
        for name, parts in chunks.items():
            with (root / "bare" / name).open("wb") as file:
                for part in parts:
                    file.write(codec.encode(part))

    return best_seconds({"bare": bare, "cache": lambda: cache.put(records, vocab=VOCAB, encoding=ENCODING)}, rounds=3)


def _chunks(records: Sequence[TeacherRecord]) -> dict[str, list[NDArray[Any]]]:
    """The chunks of every column, laid out as they are stored."""
    size = SegmentSize(
        rows=len(records),
        scored_rows=ROWS,
        tokens=sum(len(record.token_ids) for record in records),
        k=K,
        chunk_rows=rows_per_chunk(ROWS, k=K),
        encoding=ENCODING,
    )
    columns, found = segment_columns(records, encoding=ENCODING), {}
    for name, layout in layouts(size).items():
        parts = [columns[name][at : at + layout.shape[0]] for at in range(0, len(columns[name]), layout.shape[0])]
        found[name] = [np.ascontiguousarray(part.T if layout.transposed else part) for part in parts]
    return found
