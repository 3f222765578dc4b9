"""The worst come first, and only where the teacher is right and the student is not."""

from __future__ import annotations

import math

import pytest
from analysis_builders import answer, both

from evaluation.analysis.gaps import worst_gaps

ANSWERS = both(
    [answer(0, "a", "a", 0.9), answer(1, "a", "a", 0.6), answer(2, "a", "a", 0.99), answer(3, "a", "b", 0.9), answer(4, "a", "a")],
    [answer(0, "a", "b", 0.5), answer(1, "a", "b", 0.95), answer(2, "a", "a", 0.1), answer(3, "a", "b", 0.9), answer(4, "a", "b", 0.9)],
)  # fmt: skip


def test_the_worst_first_and_unknown_confidences_last() -> None:
    gaps = worst_gaps(ANSWERS, at_most=10)
    assert [gap.teacher.row for gap in gaps] == [1, 0, 4]
    assert [gap.confidence_gap for gap in gaps[:2]] == pytest.approx([0.55, 0.4])
    assert math.isnan(gaps[2].confidence_gap) and gaps[2].score_gap == 1.0
    assert gaps[0].student.answer == "b" and gaps[0].teacher.shown == "row 1"


def test_not_more_than_asked_for() -> None:
    assert [gap.teacher.row for gap in worst_gaps(ANSWERS, at_most=1)] == [1]
