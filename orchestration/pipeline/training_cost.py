"""What the stages of a student took to train, kept with the student: whoever reuses it sees what it took then.

Nothing of it addresses the student. One that was trained before anybody counted says its tokens, and no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from configs.places import CURVES
from evaluation.results import ModelResults, Training
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.curves import read_curve
from orchestration.pipeline.chain import Student
from orchestration.pipeline.links import TrainedLink

FIELD = "took"
"""Of what is kept with a student's stage."""

NOT_SAID = "not said"
"""Where a stage was trained, if nobody wrote it down."""


@dataclass(frozen=True, slots=True)
class Took:
    """What one stage took: altogether, and from that until its first step began, in s; NaN for what nobody counted."""

    seconds: float = math.nan
    start_seconds: float = math.nan
    joules: float = math.nan
    trained_on: str = NOT_SAID

    @classmethod
    def of(cls, summary: Mapping[str, object]) -> Took:
        """As it is kept with a stage; unknown where it is not, or is something else."""
        kept = summary.get(FIELD)
        if not isinstance(kept, dict):
            return cls()
        numbers = {name: _number(kept.get(name)) for name in ("seconds", "start_seconds", "joules")}
        return cls(**numbers, trained_on=str(kept.get("trained_on", NOT_SAID)))

    def kept(self) -> dict[str, object]:
        """What to keep: all that is known."""
        return {name: value for name, value in asdict(self).items() if value == value and value != NOT_SAID}


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Begun when a stage asks for its workers; `asked_at` is then, in s since the epoch, as other machines count it."""

    began: float
    asked_at: float
    joules: float
    read_joules: Callable[[], float]
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def start(cls, read_joules: Callable[[], float], *, clock: Callable[[], float] = time.monotonic) -> Stopwatch:
        """Begin."""
        return cls(clock(), time.time(), read_joules(), read_joules, clock)

    def took(self, *, begun_at: object, trained_on: str) -> Took:
        """What has passed; `begun_at` is when the first step began, in s since the epoch, if that is known."""
        start = max(begun_at - self.asked_at, 0.0) if isinstance(begun_at, float) else math.nan  # clocks may differ
        return Took(self.clock() - self.began, start, self.read_joules() - self.joules, trained_on)


def training_of(links: Sequence[TrainedLink], *, artifacts: Artifacts) -> Training | None:
    """All stages of a trained student together, their curves one after the other; None if it is gone."""
    kept = [artifacts.read_student(link.digest) for link in links]
    summaries = [each for each in kept if each is not None]
    if len(summaries) < len(kept):
        return None
    took = [Took.of(summary) for summary in summaries]
    places = dict.fromkeys(each.trained_on for each in took)
    return Training(
        seconds=math.fsum(each.seconds for each in took),
        tokens=sum(int(_number(summary.get("tokens"))) for summary in summaries if "tokens" in summary),
        joules=math.fsum(each.joules for each in took),
        trained_on="; then ".join(places),
        curves=_curves(links),
    )


def with_training(
    rows: Sequence[ModelResults], students: Sequence[Student], *, artifacts: Artifacts
) -> tuple[ModelResults, ...]:
    """The rows of a comparison, those of trained students with what they took to make."""
    trained = {student.name: training_of(student.links, artifacts=artifacts) for student in students}
    return tuple(replace(row, training=trained.get(row.name)) for row in rows)


def _curves(links: Sequence[TrainedLink]) -> dict[str, tuple[tuple[int, float], ...]]:
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


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
