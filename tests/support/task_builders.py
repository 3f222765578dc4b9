"""Answers to the examples of a task, written briefly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.task import FIELDS, TaskConfig, TaskKind
from evaluation.metric import Measured
from evaluation.results import TaskExample
from evaluation.tasks.measuring import measure


def task_of(kind: TaskKind, **settings: Any) -> TaskConfig:
    """A task whose fields are called as their roles are."""
    plain: dict[str, Any] = {
        "name": "t",
        "kind": kind,
        "data": {"test": {"path": "test.jsonl"}},
        "fields": {role: role for role in FIELDS[kind]},
        "template": "{{ text }}",
    }
    return TaskConfig.model_validate(plain | settings)


def answered(
    gold: Sequence[str] | str, predicted: Sequence[str] | str | None, *, row: int = 0, seed: int = 0
) -> TaskExample:
    """One answer; a text stands for a tuple of one."""
    return TaskExample(
        row=row,
        seed=seed,
        shown="",
        gold=(gold,) if isinstance(gold, str) else tuple(gold),
        answer="",
        predicted=(predicted,) if isinstance(predicted, str) else None if predicted is None else tuple(predicted),
        confidence=float("nan"),
        tokens=1,
    )


def rows_of(pairs: Sequence[tuple[Sequence[str] | str, Sequence[str] | str | None]]) -> list[TaskExample]:
    """One row for each pair of gold and predicted."""
    return [answered(gold, predicted, row=row) for row, (gold, predicted) in enumerate(pairs)]


def measured(kind: str, examples: Sequence[TaskExample], *, labels: Sequence[str] = ()) -> dict[str, Measured]:
    """Every metric by its name."""
    return {one.metric.name: one for one in measure(kind, examples, labels=labels)}


def values(kind: str, examples: Sequence[TaskExample], *, labels: Sequence[str] = ()) -> dict[str, float]:
    """The value of every metric by its name."""
    return {name: one.value for name, one in measured(kind, examples, labels=labels).items()}
