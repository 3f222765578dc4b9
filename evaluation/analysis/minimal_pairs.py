"""Rows that differ in one thing alone (a negation, the order of words, one keyword): does the answer follow?

Who knows keywords only answers both rows alike, and is right in one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.analysis.judging import BothAnswers, Judged, same_answer


@dataclass(frozen=True, slots=True)
class PairsAnswered:
    """Of `pairs` answered pairs: in how many both answers are right, in how many they differ at all.

    In `should_change` of them the right answers differ. Rows of pairs that are not two are not in it.
    """

    pairs: int
    should_change: int
    teacher_right: int
    student_right: int
    teacher_changes: int
    student_changes: int


def pairs_answered(answers: Sequence[BothAnswers]) -> PairsAnswered | None:
    """What became of the pairs, under each seed by itself; None where no two rows form one."""
    groups: dict[tuple[str, int], list[BothAnswers]] = defaultdict(list)
    for both in answers:
        example = both.teacher.example
        if example.pair is not None:
            groups[example.pair, example.seed].append(both)
    pairs = [(group[0], group[1]) for group in groups.values() if len(group) == 2]
    if not pairs:
        return None
    teacher = [(first.teacher, second.teacher) for first, second in pairs]
    student = [(first.student, second.student) for first, second in pairs]
    return PairsAnswered(
        pairs=len(pairs),
        should_change=sum(set(one.example.gold) != set(other.example.gold) for one, other in teacher),
        teacher_right=_both_right(teacher),
        student_right=_both_right(student),
        teacher_changes=sum(not same_answer(one, other) for one, other in teacher),
        student_changes=sum(not same_answer(one, other) for one, other in student),
    )


def _both_right(pairs: Sequence[tuple[Judged, Judged]]) -> int:
    return sum(one.hit and other.hit for one, other in pairs)
