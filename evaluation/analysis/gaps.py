"""Where a student falls furthest behind: its teacher is surely right, and the student surely wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.analysis.judging import BothAnswers
from evaluation.results import TaskExample


@dataclass(frozen=True, slots=True)
class Gap:
    """A row on which the teacher is right and the student is not.

    `confidence_gap` is how far apart they are at least in the probability of the right answer: the teacher holds it
    with its confidence, the student with 1 - its own at most. NaN where one of them is not known.
    """

    teacher: TaskExample
    student: TaskExample
    confidence_gap: float
    score_gap: float


def worst_gaps(answers: Sequence[BothAnswers], *, at_most: int) -> tuple[Gap, ...]:
    """The worst first: by confidence, those without one after them by score."""
    gaps = [
        Gap(
            both.teacher.example,
            both.student.example,
            both.teacher.example.confidence + both.student.example.confidence - 1.0,
            both.teacher.score - both.student.score,
        )
        for both in answers
        if both.teacher.hit and not both.student.hit
    ]
    return tuple(sorted(gaps, key=_how_bad)[:at_most])


def _how_bad(gap: Gap) -> tuple[bool, float, float, int]:
    known = not math.isnan(gap.confidence_gap)
    return (not known, -gap.confidence_gap if known else 0.0, -gap.score_gap, gap.teacher.row)
