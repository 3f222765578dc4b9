"""What intervals and tests promise, over many samples of populations whose true values are known.

Coverage of the 95 % intervals, level of the permutation test where models do not differ, and family-wise level after
Holm's correction, each within binomial error.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import KL, POPULATIONS, Rows

from evaluation.metric import Measured, Metric
from evaluation.statistics import Resampling, compare_models, estimate
from evaluation.statistics.permutation import permutation_p

pytestmark = pytest.mark.slow

REPEATS = 2000
HOW = Resampling(draws=1000)


def error_of(rate: float) -> float:
    """Four binomial standard errors, and half a point for draws that are a thousand and not endless."""
    return 4 * math.sqrt(rate * (1 - rate) / REPEATS) + 0.005


@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("name", POPULATIONS)
def test_95_percent_of_the_intervals_hold_the_truth(name: str, n: int) -> None:
    population = POPULATIONS[name]
    value, apart = population.truth()
    random = np.random.default_rng(n)
    held = np.zeros(2)
    for _ in range(REPEATS):
        first, second = (Measured(population.metric, rows) for rows in population.draw(random, n))
        one = estimate(first, HOW).interval
        two = compare_models(first, {"second": second}, HOW)["second"]
        held += [one.low <= value <= one.high, two.low <= apart <= two.high]
    assert held / REPEATS == pytest.approx([0.95, 0.95], abs=error_of(0.95))


@pytest.mark.parametrize("name", POPULATIONS)
def test_of_models_that_do_not_differ_5_percent_look_different(name: str) -> None:
    population, random = POPULATIONS[name], np.random.default_rng(5)
    p = np.array(
        [permutation_p(*_alike(population.draw(random, 80), random, population.metric), HOW) for _ in range(REPEATS)]
    )
    for level in (0.05, 0.2):
        # Hits are counted: p takes few values, and the level is kept from below.
        assert np.mean(p <= level) < level + error_of(level)
        if name != "accuracy":
            assert np.mean(p <= level) > level - error_of(level)


def test_of_tables_of_five_equal_students_5_percent_name_one() -> None:
    random = np.random.default_rng(6)
    named, uncorrected = 0, 0
    for _ in range(REPEATS):
        hard = random.gamma(2.0, 0.5, 60)
        models = [Measured(KL, np.stack([hard * random.gamma(5, 0.2, 60), np.ones(60)], axis=1)) for _ in range(6)]
        found = compare_models(
            models[0], {str(at): model for at, model in enumerate(models[1:])}, Resampling(draws=400)
        )
        named += any(difference.verdict != "no difference seen" for difference in found.values())
        uncorrected += any(difference.p < 0.05 for difference in found.values())
    assert named / REPEATS < 0.05 + error_of(0.05)
    assert uncorrected / REPEATS > 0.1


def _alike(rows: tuple[Rows, Rows], random: np.random.Generator, metric: Metric) -> tuple[Measured, Measured]:
    """Two models that do not differ: of the rows of an example either goes to either."""
    first, second = rows
    swap = random.random((len(first), 1)) < 0.5
    return Measured(metric, np.where(swap, second, first)), Measured(metric, np.where(swap, first, second))
