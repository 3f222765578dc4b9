"""The numbers that models are judged by, each with its interval and with what sets it apart from the baselines.

A student is held against three: its teacher, the untouched student that it started from, and the simplest method that
was tried beside it (`evaluation.analysis.entries.simplest_beside`). Differences are of the same examples; the tests are
corrected over the students of the table, and are those that the sentences rest on (`evaluation.qualities`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.analysis.entries import simplest_beside
from evaluation.qualities import Quality
from evaluation.report.blocks import Mark, Sign
from evaluation.report.merging import Part
from evaluation.statistics import Difference, Estimate, estimate, in_words
from evaluation.verdict import WITHOUT_TEACHER, beyond_twin

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
        held = self.held.get(model, ())
        teachers = sum(each.baseline == "teacher" for each in held)
        return tuple(
            Mark(
                SIGNS[each.difference.verdict],
                each.name if _by_name(each, teachers=teachers) else each.baseline,
                f"against {each.name}: {in_words(each.difference, self.quality.metric)}",
            )
            for each in held
            if each.difference.verdict in SIGNS
        )


def judge(quality: Quality, part: Part) -> Judged:
    """Intervals, and for a headline the differences from the baselines."""
    held: dict[str, list[Held]] = {}
    for baseline, name, found in _differences(quality, part) if quality.headline else ():
        for student, difference in found.items():
            held.setdefault(student, []).append(Held(baseline, name, difference))
    return Judged(
        quality,
        {name: estimate(measured, quality.how) for name, measured in quality.measured.items()},
        {name: tuple(found) for name, found in held.items()},
    )


def _differences(quality: Quality, part: Part) -> Iterator[tuple[Baseline, str, Mapping[str, Difference]]]:
    """Each baseline with its name and what sets apart from it the students that are held against it."""
    models = part.results.models
    students = [model for model in models if model.role == "student"]
    names = [student.name for student in students]
    for model in models:
        if model.role == "teacher":
            yield "teacher", model.name, quality.against(model.name, names)
    for start in dict.fromkeys(student.start for student in students if student.start is not None):
        yield "start", start, quality.against(start, [each.name for each in students if each.start == start])
    plainer = {student.name: simple.name for student in students if (simple := simplest_beside(student, models))}
    for name in dict.fromkeys(plainer.values()):
        # Corrected over all others, as what is said of the students is, whomever of them it is the baseline of.
        found = quality.against(name, [other for other in names if other != name])
        mine = {student: difference for student, difference in found.items() if plainer.get(student) == name}
        yield "simplest", name, {student: each for student, each in mine.items() if name not in _twins(student)}
    # The same student without a teacher: these pairs are corrected over each other.
    for twin in WITHOUT_TEACHER:
        for student, difference in beyond_twin(students, quality, twin=twin).items():
            yield "simplest", f"{student}{twin}", {student: difference}


def _by_name(held: Held, *, teachers: int) -> bool:
    """Whether a baseline is called by its name: one of several teachers, or of several methods."""
    return held.baseline == "simplest" or (held.baseline == "teacher" and teachers > 1)


def _twins(student: str) -> set[str]:
    return {f"{student}{twin}" for twin in WITHOUT_TEACHER}
