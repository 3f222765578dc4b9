"""Two models' answers to the rows of a task, written briefly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evaluation.analysis.judging import BothAnswers, both_answers
from evaluation.results import FinalScores, TaskExample, TaskFacts


def answer(
    row: int,
    gold: str,
    predicted: str | None,
    confidence: float = math.nan,
    *,
    seed: int = 0,
    tokens: int = 10,
    pair: str | None = None,
) -> TaskExample:
    return TaskExample(
        row=row,
        seed=seed,
        shown=f"row {row}",
        gold=(gold,),
        answer=predicted or "?",
        predicted=None if predicted is None else (predicted,),
        confidence=confidence,
        tokens=tokens,
        pair=pair,
    )


def final(*examples: TaskExample, task: str = "letters") -> FinalScores:
    return FinalScores(task, "text", examples)


def facts(
    *,
    name: str = "letters",
    kind: str = "classification",
    labels: tuple[str, ...] = ("a", "b", "c"),
    metric: str = "accuracy",
    counts: Mapping[str, int] | None = None,
    digest: str = "0" * 64,
) -> TaskFacts:
    return TaskFacts(
        name=name,
        digest=digest,
        kind=kind,
        labels=labels,
        metric=metric,
        few_shot=0,
        train_rows=sum((counts or {}).values()),
        dev_rows=0,
        test_rows=4,
        baseline=0.5,
        exact_copies=0,
        near_copies=0,
        near_duplicate=0.8,
        set_aside=(),
        train_label_counts=counts or {},
        licence=None,
    )


def both(teacher: Sequence[TaskExample], student: Sequence[TaskExample]) -> tuple[BothAnswers, ...]:
    """Classification, in pairs."""
    return both_answers(final(*teacher), final(*student), facts())
