"""Learning rates at the points that define a schedule."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest

from student_train.training.schedule import FINAL_FRACTION, learning_rate

Schedule = Literal["cosine", "linear", "constant"]


def rates(schedule: Schedule, *, total: int = 100, warmup: int = 10) -> list[float]:
    return [
        learning_rate(step, peak=2.0, total_steps=total, warmup_steps=warmup, schedule=schedule)
        for step in range(total)
    ]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warmup_rises_from_above_zero_to_the_peak(schedule: Schedule) -> None:
    warm = rates(schedule)[:11]
    assert warm[0] > 0
    assert all(before < after for before, after in pairwise(warm))
    assert warm[10] == 2.0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decay_falls_to_the_final_fraction_at_the_last_step(schedule: Schedule) -> None:
    tail = rates(schedule)[10:]
    assert all(before > after for before, after in pairwise(tail))
    assert tail[-1] == pytest.approx(2.0 * FINAL_FRACTION)


def test_shapes_differ_in_the_middle() -> None:
    at_quarter = 1 + (100 - 1) // 4
    cosine, linear = (rates(schedule, warmup=0)[at_quarter] for schedule in ("cosine", "linear"))
    assert linear == pytest.approx(2.0 * (0.1 + 0.9 * (1 - at_quarter / 99)))
    assert cosine > linear


def test_constant_stays() -> None:
    assert set(rates("constant")[10:]) == {2.0}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_very_short_runs_and_long_warmups_are_defined(schedule: Schedule) -> None:
    assert learning_rate(0, peak=1.0, total_steps=1, schedule=schedule) == 1.0
    assert rates(schedule, total=5, warmup=20) == [2.0 * (step + 1) / 21 for step in range(5)]
