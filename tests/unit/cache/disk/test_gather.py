"""Rows of many chunks, gathered into one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_builders import ENCODINGS, Stored, assert_read, make_entries, make_segment
from store_builders import VOCAB, make_record

from cache.blocks import read_block, read_records
from cache.disk.gather import Spans
from cache.sampling import sample_rows
from configs.errors import RecordError


def test_rows_of_several_k_are_read_as_stored_one_by_one_and_not_as_a_block(stored: Stored) -> None:
    segments = [segment for segment, _ in stored]
    wanted = [(at % 3, at) for at in range(20)]
    entries = make_entries(wanted, stored)
    for found, (segment, row) in zip(read_records(segments, entries, k=None), wanted, strict=True):
        record = stored[segment][1][row]
        assert_read(found, record, encoding=ENCODINGS[segment], k=record.k, length=len(record.token_ids))
    with pytest.raises(RecordError, match="together"):
        read_block(segments, entries, k=None)
    with pytest.raises(RecordError, match="k=6 cannot be read with k=7"):
        read_block(segments, entries, k=7)


def test_draws_and_log_probabilities_are_no_block(tmp_path: Path) -> None:
    whole = make_record([3, 4, 5, 6], prompt_len=2, k=VOCAB)
    drawn = sample_rows(whole, draws=9, seed=0)
    stored = [
        (make_segment(tmp_path, [record], encoding=encoding), [record])
        for record, encoding in ((whole, "full"), (drawn, "sampled"))
    ]
    segments, entries = [segment for segment, _ in stored], make_entries([(0, 0), (1, 0)], stored)
    with pytest.raises(RecordError, match="read them separately"):
        read_block(segments, entries, k=1)
    assert [record.k for record in read_records(segments, entries, k=1)] == [1, drawn.k]
    assert [record.k for record in read_block(segments, entries, k=0).records()] == [0, 0]


def test_copied_spans_may_be_empty() -> None:
    target, none = np.zeros(4), np.empty(0, dtype=np.int64)
    Spans(none, none, none).copy([(target, np.ones(4))])
    Spans(np.array([1, 3]), np.array([0, 2]), np.array([0, 1])).copy([(target, np.arange(4.0))])
    assert target.tolist() == [0, 0, 0, 2]
