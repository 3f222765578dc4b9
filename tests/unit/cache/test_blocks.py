from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_builders import ENCODINGS, Stored, assert_read, make_entries, make_segment
from store_builders import VOCAB, assert_same_text, make_record

from cache.blocks import read_block, read_records
from cache.index import SEQUENCE_ROW
from cache.records import TeacherRecord
from cache.sampling import sample_rows


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
