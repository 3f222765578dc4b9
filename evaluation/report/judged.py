"""The numbers that models are judged by, each with its interval and with what sets it apart from the baselines.

A student is held against three: its teacher, the untouched student that it started from, and the simplest method of the
table (SFT on gold answers, else SeqKD), or the same student trained on gold labels alone. Differences are of the same
examples; the tests are corrected over the students of the table, and are those that the sentences rest on
(`evaluation.qualities`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.analysis.entries import SIMPLEST
from evaluation.qualities import Quality
from evaluation.report.blocks import Mark, Sign
from evaluation.report.merging import Part
from evaluation.results import ModelResults
from evaluation.statistics import Difference, Estimate, estimate, in_words
from evaluation.verdict import beyond_gold, gold_twin

SIGNS: Mapping[str, Sign] = {"better": "better", "worse": "worse", "no difference seen": "same"}

Baseline = Literal["teacher", "start", "simplest"]


@dataclass(frozen=True, slots=True)
class Held:
    """A student held against a baseline, the model `name`."""

    baseline: Baseline
    name: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Judged:
    """A quality with the interval of each model, and each student held against its baselines."""

    quality: Quality
    estimates: Mapping[str, Estimate]
    held: Mapping[str, tuple[Held, ...]]

    def marks(self, model: str) -> tuple[Mark, ...]:
        """What to show beside a model's number."""
        return tuple(
            Mark(
                SIGNS[each.difference.verdict],
                each.name if each.baseline == "simplest" else each.baseline,
                f"against {each.name}: {in_words(each.difference, self.quality.metric)}",
            )
            for each in self.held.get(model, ())
            if each.difference.verdict in SIGNS
        )


def judge(quality: Quality, part: Part) -> Judged:
    """Intervals, and for a headline the differences from the baselines."""
    held: dict[str, list[Held]] = {}
    for baseline, name, students in _pairs(part) if quality.headline else ():
        for student, difference in quality.against(name, students).items():
            held.setdefault(student, []).append(Held(baseline, name, difference))
    trained = [model for model in part.results.models if model.role == "student"]
    for student, difference in (beyond_gold(trained, quality) if quality.headline else {}).items():
        held.setdefault(student, []).append(Held("simplest", gold_twin(student), difference))
    return Judged(
        quality,
        {name: estimate(measured, quality.how) for name, measured in quality.measured.items()},
        {name: tuple(found) for name, found in held.items()},
    )


def simplest(part: Part) -> ModelResults | None:
    """The student of the simplest method; None where no such one was trained."""
    students = [model for model in part.results.models if model.role == "student"]
    return next((model for method in SIMPLEST for model in students if model.method == method), None)


def _pairs(part: Part) -> list[tuple[Baseline, str, list[str]]]:
    """Each baseline with its name and the students that are held against it."""
    models = part.results.models
    students = [model for model in models if model.role == "student"]
    names = [student.name for student in students]
    pairs: list[tuple[Baseline, str, list[str]]] = [
        ("teacher", model.name, names) for model in models if model.role == "teacher"
    ]
    for start in dict.fromkeys(student.start for student in students if student.start is not None):
        pairs.append(("start", start, [student.name for student in students if student.start == start]))
    simple = simplest(part)
    twins = {gold_twin(name) for name in names} & set(names)
    # Who has learned from gold labels alone is held against, student by student: see `beyond_gold`.
    if simple is not None and not twins:
        pairs.append(("simplest", simple.name, [name for name in names if name != simple.name]))
    return pairs
