"""The alarm, on curves of which it is known what it has to say."""

from __future__ import annotations

import itertools
import math

import pytest

from student_train.job import StepMetrics
from student_train.losses.metrics import METRICS
from student_train.training.overfit import CACHE_OVERFIT, added, cache_overfit, first_overfit


def sums_of(**values: float) -> list[float]:
    return [values.get(name, 0.0) for name in METRICS]


def curve(held_out: list[float], learned: list[float], *, measure: str = "divergence") -> list[StepMetrics]:
    """What is held out from step 0 on, and what is learned from the first measurement after it."""
    first, *others = [{f"dev/{measure}": value, "dev/loss": value} for value in held_out]
    rest = [at | {f"train/measured_{measure}": value} for at, value in zip(others, learned, strict=True)]
    return [StepMetrics(10 * at, values) for at, values in enumerate([first, *rest])]


def test_the_gap_is_between_means_over_positions_and_by_one_measure() -> None:
    known = {"loss": 4, "divergence": 4, "ce": 4}
    sums = added({}, sums_of(loss=8.0, divergence=2.0), known=known)
    sums = added(sums, sums_of(loss=4.0, divergence=4.0), known=dict.fromkeys(known, 2))
    held_out = {"dev/loss": 5.0, "dev/divergence": 1.75}
    assert cache_overfit(held_out, sums) == {CACHE_OVERFIT: 0.75, "train/measured_divergence": 1.0}
    # Where one side has no divergence it is the loss, of both.
    assert cache_overfit({"dev/loss": 5.0}, sums) == {CACHE_OVERFIT: 3.0, "train/measured_loss": 2.0}
    text = added({}, sums_of(loss=6.0), known={"loss": 3})
    assert cache_overfit(held_out, text) == {CACHE_OVERFIT: 3.0, "train/measured_loss": 2.0}
    assert cache_overfit(held_out, {}) == {}


@pytest.mark.parametrize(
    ("held_out", "learned", "step"),
    [
        ([5.0, 3.0, 2.0, 1.5], [4.0, 2.0, 1.0], None),  # both fall
        ([5.0, 3.0, 3.1, 3.5], [4.0, 2.0, 1.0], 20),
        ([5.0, 3.0, 2.0, 2.5], [4.0, 2.0, 1.0], 30),
        ([5.0, 3.0, 2.0, 2.5], [4.0, 2.0, 2.0], None),  # nothing is learned any more
        ([5.0, 3.0, 4.0, 4.5], [4.0, 6.0, 7.0], None),  # both rise: a rate too high
        ([5.0, 6.0, 4.0], [4.0, 2.0], None),  # the second is the best
        ([5.0, 6.0], [4.0], None),  # there is nothing yet that it may have fallen from
        ([1.0, 6.0, 7.0], [4.0, 2.0], 20),  # the start was the best
        ([5.0, 3.0, math.nan, 3.1], [4.0, 2.0, 1.0], 30),
        ([5.0], [], None),
    ],
)
def test_it_goes_off_where_the_one_rises_and_the_other_falls(
    held_out: list[float], learned: list[float], step: int | None
) -> None:
    for measure in ("divergence", "loss"):
        found = first_overfit(curve(held_out, learned, measure=measure))
        assert (None if found is None else found.step) == step


def test_it_goes_off_once_whenever_one_looks() -> None:
    whole = curve([5.0, 3.0, 3.5, 4.0, 3.0, 4.5], [4.0, 2.0, 1.0, 0.5, 0.4])
    found = [first_overfit(whole[:until]) for until in range(1, len(whole) + 1)]
    assert [None if one is None else one.step for one in found] == [None, None, 20, 20, 20, 20]


def test_the_line_names_the_step_all_values_and_the_cure() -> None:
    found = first_overfit(curve([5.0, 3.0, 3.5], [4.0, 2.0]))
    assert found is not None
    assert found.warning("raise views") == (
        "step 20: over-fits what the teacher said: held-out divergence 3.5000 is over its best of 3.0000 while that "
        "of the rows that are learned fell from 4.0000 to 2.0000; raise views"
    )


def test_a_student_that_learns_by_heart_is_told_from_one_that_learns() -> None:
    """Closed curves: what is learned falls as exp(-t), what is held out as exp(-t) + c t^2, with its least before 3."""
    times = [at / 2 for at in range(14)]
    learned = [math.exp(-at) for at in times[1:]]
    for share in (0.0, 0.05):
        held_out = [math.exp(-at) + share * at**2 for at in times]
        rises = [10 * at for at, (a, b) in enumerate(itertools.pairwise(held_out), start=1) if b > a]
        found = first_overfit(curve(held_out, learned))
        assert (None if found is None else found.step) == (rises[0] if share else None)
