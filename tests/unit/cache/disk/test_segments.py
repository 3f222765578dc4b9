"""A segment is read in chunks, and each of them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from store_builders import TEACHER, VOCAB, make_record, open_cache, teacher_dir

from cache.blocks import read_block
from cache.disk.key_objects import FINISHES, KEY, Table
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.disk.packing import pack_segment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.index import SEQUENCE_ROW
from cache.keys import KEY_BYTES
from cache.records import TeacherRecord, tail_logmass

Stored = list[tuple[Segment, list[TeacherRecord]]]


def make_segment(
    root: Path, records: Sequence[TeacherRecord], *, encoding: str, chunks: ChunkCache | None = None
) -> Segment:
    open_cache(root)
    storage = LocalStorage(teacher_dir(root))
    staging = Staging(storage)
    packed = pack_segment(records, generations=[], encoding=encoding, vocab=VOCAB)
    staging.publish(packed, SegmentTerms(identity=TEACHER.digest(), vocab=VOCAB, provenance={}, licence=None))
    staging.drop()
    manifest = read_manifest(storage, staging.name, identity=TEACHER.digest())
    return Segment(storage, manifest, chunks=ChunkCache(2**24) if chunks is None else chunks)


def some_records(rng: np.random.Generator, *, count: int, k: int, most: int = 20) -> list[TeacherRecord]:
    """Records of 0 to `most` - 2 response tokens, every fifth of them text alone."""
    lengths = rng.integers(2, most, size=count)
    tokens = [rng.integers(2, VOCAB, size=length + 3).tolist() for length in lengths]
    return [
        make_record(row[: length + 1], prompt_len=2, k=0 if at % 5 == 4 else k, version=at if at % 2 else None)
        for at, (row, length) in enumerate(zip(tokens, lengths.tolist(), strict=True))
    ]


def make_entries(
    wanted: Sequence[tuple[int, int]], stored: Stored, *, cut: Callable[[TeacherRecord], int] = lambda record: 0
) -> Table:
    """Index entries of (segment, row), each `cut` tokens shorter than it is stored."""
    entries = np.zeros(len(wanted), dtype=SEQUENCE_ROW)
    for at, (segment, row) in enumerate(wanted):
        record = stored[segment][1][row]
        length = len(record.token_ids) - cut(record)
        entries[at] = (record.key, segment, row, record.k, length, record.prompt_len, FINISHES.index(record.finish))
    return entries


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Three segments of different encodings and K, of many chunks each, behind one small chunk cache."""
    rng, chunks = np.random.default_rng(0), ChunkCache(4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache.disk.columns.CHUNK_ROWS", 7)
        found = []
        for encoding, k in (("topk-u8", 8), ("topk-f16", 6), ("full", VOCAB)):
            records = some_records(rng, count=25, k=k)
            root = tmp_path_factory.mktemp("segment")
            found.append((make_segment(root, records, encoding=encoding, chunks=chunks), records))
    return found


def test_a_key_that_ends_in_zeros_stays_whole(stored: Stored) -> None:
    entries = make_entries([(0, 1)], stored)
    short = b"\1" * (KEY_BYTES - 3) + bytes(3)
    entries["key"] = np.frombuffer(short, dtype=KEY)
    assert read_block([stored[0][0]], entries, k=0).records()[0].key == short


def test_a_chunk_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def held(*arguments: object, **named: object) -> object:
        decoded.append(1)
        return held_rows(*arguments, **named)  # type: ignore[arg-type]

    from cache.disk.encoding import held_rows

    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 16)
    monkeypatch.setattr("cache.disk.segments.held_rows", held)
    records = some_records(np.random.default_rng(1), count=20, k=8)
    stored = [(make_segment(tmp_path, records, encoding="topk-u8"), records)]
    entries = make_entries([(0, row) for row in range(20)], stored)
    chunks = -(-sum(record.response_len for record in records if record.k) // 16)
    for _ in range(3):
        read_block([stored[0][0]], entries, k=None)
    assert len(decoded) == chunks > 3


def test_the_tail_of_a_cut_row_is_added_up(stored: Stored) -> None:
    segment, records = stored[0]
    block = read_block([segment], make_entries([(0, 0)], [(segment, records)]), k=2)
    assert block.topk_logprobs is not None and block.tail_logmass is not None
    np.testing.assert_allclose(block.tail_logmass, tail_logmass(block.topk_logprobs, vocab=VOCAB), rtol=1e-4)
