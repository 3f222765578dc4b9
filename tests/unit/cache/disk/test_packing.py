"""A segment as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import zarr
from signal_builders import STATES, ask, respond, some_requests
from store_builders import VOCAB, make_record

from cache.disk.columns import segment_columns, shared_columns
from cache.disk.packing import PackedSegment, pack_segment, pack_signals
from cache.disk.ranked_ids import by_rank
from cache.disk.signal_encoding import SIGNAL_ENCODINGS, SignalEncoding, encode_values
from cache.records import TeacherRecord
from cache.sampling import sample_rows


def some_records(rng: np.random.Generator, *, count: int, k: int, most: int = 20) -> list[TeacherRecord]:
    """Records of 0 to `most` - 2 response tokens, every fifth of them text alone."""
    lengths = rng.integers(2, most, size=count)
    tokens = [rng.integers(2, VOCAB, size=length + 3).tolist() for length in lengths]
    return [
        make_record(row[: length + 1], prompt_len=2, k=0 if at % 5 == 4 else k, version=at if at % 2 else None)
        for at, (row, length) in enumerate(zip(tokens, lengths.tolist(), strict=True))
    ]


@pytest.mark.parametrize("encoding", ["topk-u8", "topk-f16", "full", "sampled"])
def test_objects_are_what_zarr_python_would_write(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 16)
    monkeypatch.setattr("cache.disk.ranked_ids.LEAST_ENTRIES", 0)
    records = [record for record in some_records(np.random.default_rng(2), count=12, k=VOCAB) if record.response_len]
    if encoding == "sampled":
        records = [sample_rows(record, draws=9, seed=0) for record in records if record.k]
    elif encoding != "full":
        records = [make_record(record.token_ids.tolist(), prompt_len=2, k=8) for record in records]
    packed = pack_segment(records, generations=[], encoding=encoding, vocab=VOCAB)
    assert packed.size.scored_rows % 16 and packed.size.scored_rows > 32, "whole chunks and a shorter one"
    columns, size = by_rank(segment_columns(records, encoding=packed.size.encoding), packed.size)  # type: ignore[arg-type]
    assert size.ranked == packed.size.ranked == encoding.startswith("topk")
    assert as_zarr_writes(packed, columns) == packed.objects


@pytest.mark.parametrize("encoding", SIGNAL_ENCODINGS)
def test_objects_of_signals_are_what_zarr_python_would_write(
    encoding: SignalEncoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 16)
    records = [respond(request) for request in some_requests(12)]
    packed = pack_signals(records, encoding=encoding)
    assert packed.size.scored_rows % 16 and packed.size.scored_rows > 32, "whole chunks and a shorter one"
    values = encode_values(np.concatenate([record.values for record in records]), encoding=encoding)
    assert as_zarr_writes(packed, {**shared_columns(records), **values}) == packed.objects


def as_zarr_writes(packed: PackedSegment, columns: Mapping[str, Any]) -> dict[str, bytes]:
    """The objects that zarr-python makes of these columns below the same descriptions."""
    buffers = zarr.core.buffer.default_buffer_prototype().buffer
    held: dict[str, Any] = {
        path: buffers.from_bytes(data) for path, data in packed.objects.items() if path.endswith("zarr.json")
    }
    group: Any = zarr.open_group(zarr.storage.MemoryStore(held), mode="r+")
    for name, values in columns.items():
        group[name][:] = values
    return {path: buffer.to_bytes() for path, buffer in held.items()}


def test_signals_of_one_text_come_to_stand_side_by_side() -> None:
    records = [respond(ask([3, text, 5], signal)) for signal in STATES for text in (7, 8)]
    packed = pack_signals(records, encoding="signal-f32")
    order = [at for text in (0, 1) for at in range(text, len(records), 2)]
    assert packed.objects == pack_signals([records[at] for at in order], encoding="signal-f32").objects
    assert (packed.size.rows, packed.size.scored_rows, packed.size.k, packed.response_tokens) == (8, 8, 6, 0)
