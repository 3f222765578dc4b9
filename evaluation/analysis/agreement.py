"""Hits and misses of teacher and student: does the student make its teacher's mistakes?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.analysis.judging import BothAnswers, same_answer


@dataclass(frozen=True, slots=True)
class HitTable:
    """Answers by who is right; `same_mistake` of `neither` are the same wrong answer (two unreadable ones are not)."""

    both: int
    teacher_only: int
    student_only: int
    neither: int
    same_mistake: int

    @property
    def n(self) -> int:
        """Answers in all."""
        return self.both + self.teacher_only + self.student_only + self.neither

    @property
    def mistakes_shared(self) -> float:
        """Of the teacher's mistakes, the share that the student makes too; NaN where the teacher makes none."""
        mistakes = self.student_only + self.neither
        return self.neither / mistakes if mistakes else math.nan


def hits_and_misses(answers: Sequence[BothAnswers]) -> HitTable:
    """The two-by-two table."""
    neither = [both for both in answers if not both.teacher.hit and not both.student.hit]
    return HitTable(
        both=sum(both.teacher.hit and both.student.hit for both in answers),
        teacher_only=sum(both.teacher.hit and not both.student.hit for both in answers),
        student_only=sum(both.student.hit and not both.teacher.hit for both in answers),
        neither=len(neither),
        same_mistake=sum(
            both.teacher.example.predicted is not None and same_answer(both.teacher, both.student) for both in neither
        ),
    )
