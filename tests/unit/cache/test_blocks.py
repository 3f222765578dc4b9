from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builders import TEACHER, VOCAB, assert_same_text, make_record, open_cache, teacher_dir

from cache.blocks import read_block, read_records
from cache.disk.key_objects import FINISHES, Table
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.disk.packing import pack_segment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.index import SEQUENCE_ROW
from cache.records import TeacherRecord
from cache.sampling import sample_rows

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


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 24)), max_size=40),
    st.sampled_from([0, 1, 4, 6]),
    st.integers(0, 3),
    st.sampled_from([0, 10**6]),
)
def test_any_rows_in_any_order_are_what_the_format_says(
    stored: Stored, wanted: list[tuple[int, int]], k: int, cut: int, long_span: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Once by slices, once row by row.
        patch.setattr("cache.disk.gather.LONG_SPAN", long_span)
        entries = make_entries(wanted, stored, cut=lambda record: min(cut, record.response_len))
        if k:
            wanted = [place for place in wanted if stored[place[0]][1][place[1]].k]
            entries = entries[entries["k"] > 0]
        block = read_block([segment for segment, _ in stored], entries, k=k)
    assert len(block) == len(wanted)
    for found, (segment, row), length in zip(block.records(), wanted, entries["length"].tolist(), strict=True):
        assert_read(found, stored[segment][1][row], encoding=ENCODINGS[segment], k=k, length=length)


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_rows_as_stored_come_with_text_among_them(stored: Stored, segment: int) -> None:
    records = stored[segment][1]
    entries = make_entries([(segment, row) for row in range(25)], stored)
    block = read_block({segment: stored[segment][0]}, entries, k=None)
    assert block.k.tolist() == [record.k for record in records]
    assert block.row_offsets[-1] == sum(record.response_len for record in records if record.k)
    for found, record in zip(block.records(), records, strict=True):
        assert_read(found, record, encoding=ENCODINGS[segment], k=record.k, length=len(record.token_ids))


def test_a_block_of_draws_is_filled_up_to_its_widest_record(tmp_path: Path) -> None:
    wholes = [make_record([3, at, *range(9, 9 + at)], prompt_len=2, k=VOCAB) for at in (4, 5, 6)]
    records = [sample_rows(whole, draws=draws, seed=0) for whole, draws in zip(wholes, (2, 40, 5), strict=True)]
    stored = [(make_segment(tmp_path, records[:2], encoding="sampled"), records[:2])]
    stored.append((make_segment(tmp_path, records[2:], encoding="sampled"), records[2:]))
    block = read_block([segment for segment, _ in stored], make_entries([(0, 0), (1, 0), (0, 1)], stored), k=3)
    assert block.counts is not None and block.topk_logprobs is None and block.tail_logmass is None
    assert block.topk_ids.shape[1] == records[1].k
    np.testing.assert_array_equal(block.topk_ids == -1, block.counts == 0)
    assert block.counts.sum(axis=1).tolist() == [2] * 4 + [5] * 6 + [40] * 5
    assert block.k.tolist() == [records[0].k, records[2].k, records[1].k]


def test_nothing_asked_is_an_empty_block(stored: Stored) -> None:
    block = read_block([segment for segment, _ in stored], np.zeros(0, dtype=SEQUENCE_ROW), k=4)
    assert (len(block), block.records(), block.topk_ids.shape) == (0, [], (0, 4))


def test_a_block_is_no_window_on_the_cache(stored: Stored) -> None:
    segment, records = stored[2]
    entries = make_entries([(0, 1)], [(segment, records)])
    for _ in range(2):
        block = read_block([segment], entries, k=None)
        assert_same_text(block.records()[0], records[1])
        for item in dataclasses.fields(block):
            array = getattr(block, item.name)
            if array is not None:
                array.fill(1)


def test_threads_may_share_a_cache(stored: Stored) -> None:
    segments = [segment for segment, _ in stored]
    orders = [np.random.default_rng(seed).permutation(75).tolist() for seed in range(24)]

    def read(order: list[int]) -> list[TeacherRecord]:
        return read_records(segments, make_entries([(at % 3, at // 3) for at in order], stored), k=None)

    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(read, orders), strict=True):
            for at, record in zip(order, found, strict=True):
                assert_same_text(record, stored[at % 3][1][at // 3])
