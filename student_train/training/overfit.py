"""Whether a student learns the rows that a cache holds, and no more what its teacher would say of others.

A teacher that is asked once says the same of a row in every epoch, so a student that is patient enough can learn those
answers by heart (Beyer et al. 2022, arXiv 2106.05237). `train/cache_overfit` is the held-out mean of what is learned
minus its mean over the rows of the steps since the measurement before, both by one measure: the divergence from the
teacher where both have one, the trained loss elsewhere. Held-out rows are read without dropout, those that are learned
with it, so it may be below zero; what speaks is that it grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from student_train.job import StepMetrics
from student_train.losses.metrics import METRICS

CACHE_OVERFIT = "train/cache_overfit"

MEASURES = ("divergence", "loss")
"""Those of `METRICS` that it may be measured by; the first counts that both sides have."""

LEARNED = "train/measured_"
"""Before the name of a measure: its mean over the steps since the measurement before."""

Sums = Mapping[str, tuple[float, int]]
"""Of each measure the sum over steps, and the positions or decisions that it is divided by."""


@dataclass(frozen=True, slots=True)
class Overfit:
    """A measurement at `step` where the held-out `value` is over its `best` and what is learned still fell."""

    step: int
    measure: str
    value: float
    best: float
    before: float
    now: float

    def warning(self, cure: str) -> str:
        """It in one line, with what can be done."""
        return (
            f"step {self.step}: over-fits what the teacher said: held-out {self.measure} {self.value:.4f} is over its "
            f"best of {self.best:.4f} while that of the rows that are learned fell from {self.before:.4f} to "
            f"{self.now:.4f}; {cure}"
        )


def added(sums: Sums, step: Sequence[float], *, known: Mapping[str, int]) -> Sums:
    """`sums` and those of one more step, whose metric sums are `step`; `known` is what each is divided by."""
    found = {}
    for name in (name for name in MEASURES if name in known):
        total, places = sums.get(name, (0.0, 0))
        found[name] = (total + step[METRICS.index(name)], places + known[name])
    return found


def cache_overfit(held_out: Mapping[str, float], sums: Sums) -> dict[str, float]:
    """What a measurement says beside its `held_out` values, by its tracking names; nothing before the first step."""
    for name in MEASURES:
        total, places = sums.get(name, (0.0, 0))
        if places and f"dev/{name}" in held_out:
            mean = total / places
            return {CACHE_OVERFIT: held_out[f"dev/{name}"] - mean, f"{LEARNED}{name}": mean}
    return {}


def first_overfit(measured: Sequence[StepMetrics]) -> Overfit | None:
    """The first measurement at which the held-out value is over its best and what is learned still falls."""
    for name in MEASURES:
        best, before = math.inf, None
        for at in measured:
            value, now = at.values.get(f"dev/{name}", math.nan), at.values.get(f"{LEARNED}{name}")
            if now is not None and before is not None and value > best and now < before:
                return Overfit(at.step, name, value, best, before, now)
            # A value that is not a number is never the best.
            best = min(best, value) if math.isfinite(value) else best
            before = before if now is None else now
    return None
