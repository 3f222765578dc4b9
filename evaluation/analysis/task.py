"""Everything there is to say of one student beside its teacher on one task."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.analysis.agreement import HitTable, hits_and_misses
from evaluation.analysis.confidence import Correlation, confidence_correlation
from evaluation.analysis.gaps import Gap, worst_gaps
from evaluation.analysis.judging import RULES, both_answers
from evaluation.analysis.minimal_pairs import PairsAnswered, pairs_answered
from evaluation.analysis.retention import Retention, Slice, by_class_frequency, by_length, retention
from evaluation.results import FinalScores, TaskExample, TaskFacts
from evaluation.statistics import Resampling
from evaluation.tasks.measuring import measure_one

GAPS_KEPT = 10


@dataclass(frozen=True, slots=True)
class TaskAnalysis:
    """A student beside its teacher: `answers` that both gave, of which `hit` says in words what counts as right.

    `retention` is None where the two share no row; `pairs` where the task has no minimal pairs.
    """

    task: str
    hit: str
    answers: int
    hits: HitTable
    confidence: Correlation
    retention: Retention | None
    by_class_frequency: tuple[Slice, ...]
    by_length: tuple[Slice, ...]
    gaps: tuple[Gap, ...]
    pairs: PairsAnswered | None


def analyse(
    facts: TaskFacts, *, teacher: FinalScores, student: FinalScores, how: Resampling | None = None
) -> TaskAnalysis:
    """Both models on the test rows that both have answered."""
    answers = both_answers(teacher, student, facts)
    classes = facts.train_label_counts if facts.kind == "classification" else {}
    return TaskAnalysis(
        task=facts.name,
        hit=RULES[facts.kind].words,
        answers=len(answers),
        hits=hits_and_misses(answers),
        confidence=confidence_correlation(answers),
        retention=_retention(
            facts, [both.teacher.example for both in answers], [both.student.example for both in answers], how
        ),
        by_class_frequency=by_class_frequency(answers, classes),
        by_length=by_length(answers),
        gaps=worst_gaps(answers, at_most=GAPS_KEPT),
        pairs=pairs_answered(answers),
    )


def _retention(
    facts: TaskFacts, teacher: list[TaskExample], student: list[TaskExample], how: Resampling | None
) -> Retention | None:
    if not teacher:
        return None
    return retention(measure_one(facts, teacher), measure_one(facts, student), how)
