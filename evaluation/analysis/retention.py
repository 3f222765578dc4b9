"""How much of its teacher's score a student keeps: in all, by frequency of the class, by length of the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.analysis.judging import BothAnswers
from evaluation.metric import Measured
from evaluation.statistics.intervals import Interval, difference_interval
from evaluation.statistics.resampling import Resampling, bootstrap_values


@dataclass(frozen=True, slots=True)
class Retention:
    """Student / teacher in one metric with its 95 % interval; NaN where the teacher has nothing to keep."""

    metric: str
    teacher: float
    student: float
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Slice:
    """The answers for which something holds, their mean scores, and what the student keeps of its teacher's."""

    name: str
    n: int
    teacher: float
    student: float

    @property
    def retention(self) -> float:
        """Student / teacher; NaN where the teacher scores nothing."""
        return self.student / self.teacher if self.teacher > 0 else math.nan


def retention(teacher: Measured, student: Measured, how: Resampling | None = None) -> Retention:
    """Over the same examples; a value that the teacher has below or at 0 (MCC) is nothing to keep."""
    values = bootstrap_values([teacher, student], how or Resampling())
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(values[:, 0] > 0, values[:, 1] / values[:, 0], math.nan)
    theirs, ours = teacher.value, student.value
    kept = ours / theirs if theirs > 0 else math.nan
    return Retention(teacher.metric.name, theirs, ours, kept, difference_interval(draws, len(teacher.sums)))


def by_class_frequency(answers: Sequence[BothAnswers], train_label_counts: Mapping[str, int]) -> tuple[Slice, ...]:
    """Thirds of the labels by how often train has them; empty where that is not known, or the same for all."""

    def frequency(both: BothAnswers) -> int:
        return train_label_counts.get(both.teacher.example.gold[0], 0)

    names = ("rare", "middling", "frequent")
    return _thirds(answers, list(train_label_counts.values()), frequency, names=names, of="in train")


def by_length(answers: Sequence[BothAnswers]) -> tuple[Slice, ...]:
    """Thirds of the prompts by their length, in the teacher's tokens; empty where all are equally long."""

    def length(both: BothAnswers) -> int:
        return both.teacher.example.tokens

    names = ("short", "middling", "long")
    return _thirds(answers, [length(both) for both in answers], length, names=names, of="tokens")


def _thirds(
    answers: Sequence[BothAnswers],
    sizes: Sequence[int],
    size_of: Callable[[BothAnswers], int],
    *,
    names: tuple[str, str, str],
    of: str,
) -> tuple[Slice, ...]:
    """Answers by the third of `sizes` that theirs falls into, equal ones by their middle rank; without empty thirds."""
    if len(set(sizes)) < 2:
        return ()
    ordered = np.sort(np.asarray(sizes))

    def third_of(both: BothAnswers) -> int:
        size = size_of(both)
        twice_the_rank = int(np.searchsorted(ordered, size, "left") + np.searchsorted(ordered, size, "right"))
        return int(3 * twice_the_rank > 2 * len(ordered)) + int(3 * twice_the_rank >= 4 * len(ordered))

    third = [third_of(both) for both in answers]
    found = []
    for place, name in enumerate(names):
        chosen = [both for both, at in zip(answers, third, strict=True) if at == place]
        if chosen:
            inside = [size_of(both) for both in chosen]
            least, most = min(inside), max(inside)
            found.append(
                Slice(
                    f"{name} ({least if least == most else f'{least} to {most}'} {of})",
                    len(chosen),
                    float(np.mean([both.teacher.score for both in chosen])),
                    float(np.mean([both.student.score for both in chosen])),
                )
            )
    return tuple(found)
