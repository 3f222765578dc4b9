"""Segments of many chunks, and what a reader must find in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from store_builders import TEACHER, VOCAB, make_record, open_cache, teacher_dir

from cache.disk.key_objects import FINISHES, Table
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.disk.packing import pack_segment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.index import SEQUENCE_ROW
from cache.records import TeacherRecord

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


def reference(record: TeacherRecord, *, encoding: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and tail of a scored record, worked out from the description of the format in float64."""
    assert record.topk_logprobs is not None and record.tail_logmass is not None
    logprobs, tail = record.topk_logprobs.astype(np.float64), record.tail_logmass.astype(np.float64)
    if encoding == "topk-u8":
        shape = -np.minimum(np.rint(16 * (logprobs[:, :1] - logprobs)), 255) / 16
    elif encoding == "topk-f16":
        shape = logprobs.astype(np.float16).astype(np.float64)
    else:
        shape = logprobs
    if encoding != "full":
        shape += np.log((1 - np.exp(tail)) / np.exp(shape).sum(axis=1))[:, None]
    return shape[:, :k], np.log(np.exp(tail) + np.exp(shape[:, k:]).sum(axis=1)) if k < record.k else tail


def assert_read(found: TeacherRecord, original: TeacherRecord, *, encoding: str, k: int, length: int) -> None:
    rows = slice(0, length - original.prompt_len)
    np.testing.assert_array_equal(found.token_ids, original.token_ids[:length])
    assert (found.key, found.finish, found.origin) == (original.key, original.finish, original.origin)
    assert (found.prompt_len, found.policy_version) == (original.prompt_len, original.policy_version)
    if original.topk_ids is None or k == 0:
        assert found.topk_ids is found.topk_logprobs is found.target_logprobs is found.tail_logmass is None
        return
    logprobs, tail = reference(original, encoding=encoding, k=k)
    np.testing.assert_array_equal(found.topk_ids, original.topk_ids[rows, :k])
    np.testing.assert_array_equal(found.target_logprobs, original.target_logprobs[rows])  # type: ignore[index]
    np.testing.assert_array_equal(found.target_ranks, original.target_ranks[rows])  # type: ignore[index]
    np.testing.assert_allclose(found.topk_logprobs, logprobs[rows], rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(found.tail_logmass, tail[rows], rtol=1e-6, atol=1e-6)


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


ENCODINGS = ("topk-u8", "topk-f16", "full")
