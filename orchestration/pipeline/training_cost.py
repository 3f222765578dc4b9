"""What the stages of a student took to train, kept with the student: whoever reuses it sees what it took then.

Nothing of it addresses the student. One that was trained before anybody counted says its tokens, and no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from configs.places import CURVES
from evaluation.results import ModelResults, Training
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.curves import read_curve
from orchestration.pipeline.chain import Link, Student

FIELD = "took"
"""Of what is kept with a student's stage."""

NOT_SAID = "not said"
"""Where a stage was trained, if nobody wrote it down."""


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Begun when a stage begins to train."""

    began: float
    joules: float
    read_joules: Callable[[], float]
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def start(cls, read_joules: Callable[[], float], *, clock: Callable[[], float] = time.monotonic) -> Stopwatch:
        """Begin."""
        return cls(clock(), read_joules(), read_joules, clock)

    def took(self, *, trained_on: str) -> dict[str, object]:
        """What to keep: seconds, joules where somebody measured them, and on what."""
        joules = self.read_joules() - self.joules
        kept: dict[str, object] = {"seconds": self.clock() - self.began, "trained_on": trained_on}
        return kept | ({"joules": joules} if math.isfinite(joules) else {})


def training_of(student: Student, *, artifacts: Artifacts) -> Training | None:
    """All stages of a trained student together, their curves one after the other; None if it is gone."""
    kept = [artifacts.read_student(link.digest) for link in student.links]
    summaries = [each for each in kept if each is not None]
    if len(summaries) < len(kept):
        return None
    took = [_took(summary) for summary in summaries]
    places = dict.fromkeys(str(each.get("trained_on", NOT_SAID)) for each in took)
    return Training(
        seconds=math.fsum(_number(each.get("seconds")) for each in took),
        tokens=sum(int(_number(summary.get("tokens"))) for summary in summaries if "tokens" in summary),
        joules=math.fsum(_number(each.get("joules")) for each in took),
        trained_on="; then ".join(places),
        curves=_curves(student.links),
    )


def with_training(
    rows: Sequence[ModelResults], students: Sequence[Student], *, artifacts: Artifacts
) -> tuple[ModelResults, ...]:
    """The rows of a comparison, those of trained students with what they took to make."""
    trained = {student.name: training_of(student, artifacts=artifacts) for student in students}
    return tuple(replace(row, training=trained.get(row.name)) for row in rows)


def _curves(links: Sequence[Link]) -> dict[str, tuple[tuple[int, float], ...]]:
    points: dict[str, list[tuple[int, float]]] = {}
    first = 0
    for link in links:
        curve = list(read_curve(link.output_dir / CURVES))
        for metrics in curve:
            for name, value in metrics.values.items():
                points.setdefault(name, []).append((first + metrics.step, float(value)))
        # The first point of a stage is what is measured before it learns.
        first += 1 + max((metrics.step for metrics in curve), default=-1)
    return {name: tuple(curve) for name, curve in points.items()}


def _took(summary: Mapping[str, object]) -> Mapping[str, object]:
    took = summary.get(FIELD)
    return took if isinstance(took, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
