"""Outcomes by group of every kind of task, and what is said of groups that are too small."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.results import FinalScores, TaskExample, TaskFacts
from evaluation.side_effects.findings import Finding
from orchestration.audits.tasks import outcomes
from orchestration.audits.tasks.outcomes import outcome_findings

FACTS = TaskFacts(
    "moods", "d", "classification", ("a", "b", "c"), "macro_f1", 0, 9, 9, 80, 0.5, 0, 0, 0.8, (), {}, None
)


def answers(said: list[tuple[str, str]]) -> tuple[TaskExample, ...]:
    return tuple(
        TaskExample(row, 0, "", (gold,), "", (answer,), math.nan, 0) for row, (gold, answer) in enumerate(said)
    )


class Row:
    """A row of the comparison of which only answers are read."""

    def __init__(self, name: str, examples: tuple[TaskExample, ...], start: str | None = None) -> None:
        self.name, self.start, self.tasks = name, start, (FinalScores("moods", "head", examples),)


class Run:
    """A run of one student of which the answers and what rows say are read."""

    def __init__(self, facts: TaskFacts, student: tuple[TaskExample, ...], teacher: tuple[TaskExample, ...]) -> None:
        self.teacher_row = Row("teacher", teacher)
        own = Row("bag", student, "untouched")
        self._rows = {"untouched": Row("untouched", teacher)}
        self.students = (type("Student", (), {"row": own, "name": "bag", "method": "sft"})(),)
        self.results = type("Results", (), {"tasks": (facts,)})()
        self.task = type("Task", (), {"config": None})()
        self.config = type("Config", (), {"task": Path("task.yaml")})()

    def row(self, name: str) -> Row | None:
        return self._rows.get(name)


def found(
    monkeypatch: pytest.MonkeyPatch, run: Any, *, groups: list[str | None]
) -> tuple[dict[str, Finding], list[str]]:
    rows = {number: {"who": value} for number, value in enumerate(groups)}
    monkeypatch.setattr(outcomes, "field_rows", lambda task, folder: rows)
    findings, notes = outcome_findings(run, ["who"])
    return {each.instrument: each for each in findings}, notes


GROUPS: list[str | None] = ["x", "y"] * 40
RIGHT = answers([("a" if row % 4 < 2 else "b",) * 2 for row in range(80)])
WRONG_OF_X = tuple(replace(each, predicted=("c",)) if each.row % 8 == 0 else each for each in RIGHT)


def test_classes_have_the_tasks_metric_shares_and_recalls_beside_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, notes = found(monkeypatch, Run(FACTS, WRONG_OF_X, RIGHT), groups=GROUPS)
    against = {name.partition(": ")[2] for name in by_name if " against " in name}
    assert against == {"accuracy", "macro f1"} | {f"{of} of {label}" for of in ("share", "recall") for label in "abc"}
    accuracy = by_name["who=y against x: accuracy"]
    assert accuracy.value.value == pytest.approx(0.25) and accuracy.value.interval.low > 0.1
    assert accuracy.untouched is not None and accuracy.untouched.value == 0.0
    # What did not vary may still be as large as a rate that was never seen, either way.
    assert accuracy.teacher is not None and accuracy.teacher.interval.low < 0.0 < accuracy.teacher.interval.high
    assert by_name["who=y against x: recall of c"].unknown == "it is undefined on these 80 rows"
    assert by_name["who=x: accuracy"].value.value == pytest.approx(0.75)
    assert any(note.startswith("groups by who: 40 who=x, 40 who=y test rows") for note in notes)


def test_many_labels_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    many = replace(FACTS, labels=tuple("abcdefg"), metric="accuracy")
    by_name, _ = found(monkeypatch, Run(many, WRONG_OF_X, RIGHT), groups=GROUPS)
    assert {name.partition(": ")[2] for name in by_name} == {
        "accuracy",
        "shares of all labels",
        "recalls of all labels",
    }
    assert by_name["who=y against x: shares of all labels"].value.value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("kind", "gold", "metrics"),
    [("tagging", "0 1 LOC", {"entity f1", "entity recall"}), ("extractive_qa", "oslo", {"f1"})],
)
def test_entities_and_answers_have_their_own_metrics(
    monkeypatch: pytest.MonkeyPatch, kind: str, gold: str, metrics: set[str]
) -> None:
    labels = ("LOC",) if kind == "tagging" else ()
    facts = replace(FACTS, kind=kind, labels=labels, metric="entity_f1" if kind == "tagging" else "f1")
    right = answers([(gold, gold)] * 80)
    half = tuple(replace(each, predicted=()) if each.row % 4 == 0 else each for each in right)
    by_name, _ = found(monkeypatch, Run(facts, half, right), groups=GROUPS)
    assert {name.partition(": ")[2] for name in by_name if " against " in name} == metrics
    assert all(each.value.value > 0.2 for name, each in by_name.items() if " against " in name)


def test_small_groups_are_said_and_silent_rows_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[str | None] = [*["x"] * 40, *["y"] * 25, *["z"] * 5, *[None] * 10]
    by_name, notes = found(monkeypatch, Run(FACTS, WRONG_OF_X, RIGHT), groups=groups)
    few = "5 test rows are of it, or beside it, and it takes 20: add rows, or join groups"
    assert by_name["who=z: accuracy"].unknown == by_name["who=z against the rest: accuracy"].unknown == few
    assert by_name["who=y against the rest: accuracy"].value.n == 70
    assert "groups by who: 40 who=x, 25 who=y, 5 who=z test rows; 10 rows do not say it and are left out" in notes
