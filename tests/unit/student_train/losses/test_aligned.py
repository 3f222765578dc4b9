"""A teacher's record beside a student's positions: which row stands where, and answers behind each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from student_builders import VOCAB, record

from configs.errors import DataError
from student_train.losses.aligned import Aligned, align
from student_train.losses.alignment import Chunks

IDENTITY = np.arange(VOCAB, dtype=np.int32)


def chunks() -> Chunks:
    """Six tokens of the teacher and five of the student: 1:1, 2:1, 1:2, 1:1; the last of the teacher in none."""
    return Chunks(np.array([0, 1, 3, 4, 5]), np.array([0, 1, 2, 4, 5]))


def test_every_position_meets_the_row_of_the_text_before_it() -> None:
    told = record(3)
    assert told.topk_ids is not None and told.topk_logprobs is not None and told.target_logprobs is not None
    aligned = align(told, chunks(), vocabulary=IDENTITY, positions=5)
    assert aligned.begins.tolist() == [True, True, True, False, True]
    assert aligned.exact.tolist() == [True, False, False, False, True]
    assert aligned.spans.tolist() == [-1, 0, 1, 1, -1]
    np.testing.assert_array_equal(aligned.ranked.logprobs, told.topk_logprobs[[0, 1, 3, 4]])
    np.testing.assert_array_equal(aligned.targets.ids, told.topk_ids[[0, 4]])
    logprobs = told.target_logprobs.astype(np.float64)
    assert aligned.span_logprobs.tolist() == pytest.approx([logprobs[1] + logprobs[2], logprobs[3]])


def test_answers_stand_behind_each_other_with_spans_of_their_own() -> None:
    some = np.where(IDENTITY % 3 == 0, -1, IDENTITY).astype(np.int32)
    parts = [align(record(seed), chunks(), vocabulary=some, positions=5) for seed in (1, 2)]
    both = Aligned.joined(parts)
    assert both.spans.tolist() == [-1, 0, 1, 1, -1, -1, 2, 3, 3, -1]
    assert len(both.span_logprobs) == 4 and len(both.targets) == 4
    for part, rows in zip(parts, (slice(0, 2), slice(2, 4)), strict=True):
        known = both.targets[rows]
        assert known.logprobs is not None and part.targets.logprobs is not None
        assert known.padding is not None and part.targets.padding is not None
        ours = [set(ids[~gone].tolist()) for ids, gone in zip(known.ids, known.padding, strict=True)]
        theirs = [set(i[~g].tolist()) for i, g in zip(part.targets.ids, part.targets.padding, strict=True)]
        assert ours == theirs
        assert all(len(set(ids.tolist())) == known.k for ids in known.ids)


def test_nothing_joined_is_empty_and_can_be_moved() -> None:
    empty = Aligned.joined([]).to(torch.device("cpu"))
    assert len(empty.begins) == len(empty.targets) == len(empty.ranked) == len(empty.span_logprobs) == 0


def test_text_alone_cannot_be_aligned() -> None:
    with pytest.raises(DataError, match=r"holds text alone.*set objective: seqkd"):
        align(record(1, text_only=True), chunks(), vocabulary=IDENTITY, positions=5)
