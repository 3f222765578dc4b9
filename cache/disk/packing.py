"""From pending records to the bytes of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cache.disk.columns import SegmentSize, rows_per_chunk, segment_columns, shared_columns, zarr_objects
from cache.disk.encoding import resolve_encoding
from cache.disk.key_objects import ENTRY, FINISHES, GENERATION, key_array, pack_keys
from cache.disk.ranked_ids import by_rank
from cache.disk.signal_encoding import SignalEncoding, encode_values, measure_error
from cache.records import TeacherRecord
from cache.signals import SignalRecord
from configs.errors import RecordError


@dataclass(frozen=True, slots=True)
class Generation:
    """A request by its generation key, and the pending sequence that answers it."""

    key: bytes
    sequence: bytes
    response_len: int
    max_new_tokens: int
    finish: int


@dataclass(frozen=True, slots=True)
class PackedSegment:
    """The objects of a segment's Zarr group by path, its key object, and the numbers that its manifest repeats.

    `measured` is what packing found out for the manifest's provenance.
    """

    objects: dict[str, bytes]
    keys: bytes
    size: SegmentSize
    response_tokens: int
    generations: int
    measured: Mapping[str, str] = field(default_factory=dict)


def answered_generation(record: TeacherRecord, *, key: bytes, max_new_tokens: int | None) -> Generation:
    """The generation that a record answers; the limit is the record's own length when none is given.

    Raises:
        RecordError: when the record was not generated, holds draws, or is longer than its limit.
    """
    if record.counts is not None:
        # The sequence that was drawn from answers; else a request for log-probabilities would be led to the draws.
        raise RecordError(f"record {record.key.hex()[:12]} refused: draws answer no generation, only their source does")
    limit = record.response_len if max_new_tokens is None else max_new_tokens
    if record.finish == "given":
        raise RecordError(f"record {record.key.hex()[:12]} refused: finish=given answers no generation")
    if record.response_len > limit:
        raise RecordError(
            f"record {record.key.hex()[:12]} refused: {record.response_len} response tokens exceed the limit of {limit}"
        )
    return Generation(key, record.key, record.response_len, limit, FINISHES.index(record.finish))


def pack_segment(
    records: Sequence[TeacherRecord], *, generations: Sequence[Generation], encoding: str, vocab: int
) -> PackedSegment:
    """Pack records, none of them twice, whose scored ones share one k."""
    k = max(record.k for record in records)
    scored_rows = sum(record.response_len for record in records if record.k)
    resolved = resolve_encoding(encoding, k=k, vocab=vocab) if k else None
    size = SegmentSize(
        rows=len(records),
        scored_rows=scored_rows,
        tokens=sum(len(record.token_ids) for record in records),
        k=k,
        chunk_rows=rows_per_chunk(scored_rows, k=k),
        encoding=resolved,
    )
    columns, size = by_rank(segment_columns(records, encoding=resolved), size)
    entries = np.zeros(len(records), dtype=ENTRY)
    entries["row"] = np.arange(len(records))
    entries["k"] = [record.k for record in records]
    entries["length"] = [len(record.token_ids) for record in records]
    entries["prompt_len"] = [record.prompt_len for record in records]
    entries["finish"] = [FINISHES.index(record.finish) for record in records]
    answered = np.zeros(len(generations), dtype=GENERATION)
    for at, found in enumerate(generations):
        answered[at] = (found.key, found.sequence, found.response_len, found.max_new_tokens, found.finish, b"")
    return PackedSegment(
        objects=zarr_objects(columns, size=size),
        keys=pack_keys(key_array([record.key for record in records]), entries, answered),
        size=size,
        response_tokens=sum(record.response_len for record in records),
        generations=len(generations),
    )


def pack_signals(records: Sequence[SignalRecord], *, encoding: SignalEncoding) -> PackedSegment:
    """Pack signals of one W, none of them twice; those of one text come to stand side by side."""
    texts: dict[tuple[bytes, int], list[SignalRecord]] = {}
    for record in records:
        texts.setdefault((record.token_ids.tobytes(), record.split), []).append(record)
    records = [record for same in texts.values() for record in same]
    values = np.concatenate([record.values for record in records]).astype("<f4", copy=False)
    columns = encode_values(values, encoding=encoding)
    lengths = np.array([len(record.token_ids) for record in records], dtype=np.int64)
    splits = np.array([record.split for record in records], dtype=np.int64)
    width = values.shape[1]
    size = SegmentSize(
        rows=len(records),
        scored_rows=len(values),
        tokens=int(lengths.sum()),
        k=width,
        chunk_rows=rows_per_chunk(len(values), k=width),
        encoding=encoding,
    )
    entries = np.zeros(len(records), dtype=ENTRY)
    entries["row"], entries["k"] = np.arange(len(records)), width
    entries["length"], entries["prompt_len"], entries["finish"] = lengths, splits, FINISHES.index("given")
    return PackedSegment(
        objects=zarr_objects({**shared_columns(records), **columns}, size=size),
        keys=pack_keys(key_array([record.key for record in records]), entries, np.zeros(0, dtype=GENERATION)),
        size=size,
        response_tokens=int((lengths - splits).sum()),
        generations=0,
        measured=measure_error(values, columns, encoding=encoding).provenance(),
    )
