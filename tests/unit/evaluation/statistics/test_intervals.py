"""Intervals against scipy's bootstrap and against the cases that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import KL
from scipy.stats import beta, bootstrap, norm, t

from evaluation.metric import Measured
from evaluation.statistics.intervals import bootstrap_interval, difference_interval, never_seen_in
from evaluation.statistics.resampling import Resampling, bootstrap_values, left_out_values

RANDOM = np.random.default_rng(11)
SKEWED = np.stack([RANDOM.gamma(0.7, 1.0, 60), RANDOM.integers(3, 30, 60).astype(float)], axis=1)
MEASURED = Measured(KL, SKEWED)


def test_bca_is_that_of_scipy_on_the_same_draws() -> None:
    draws = bootstrap_values([MEASURED], Resampling(draws=4000))[:, 0]
    ours = bootstrap_interval(MEASURED.value, draws, left_out_values(MEASURED), widened=False)
    data = (SKEWED[:, 0], SKEWED[:, 1])
    given = bootstrap(data, _ratio, paired=True, method="BCa", n_resamples=4000, batch=500, rng=0, vectorized=True)
    # scipy reads its own draws: the distance is that of two sets of draws, a few per cent of the interval.
    width = given.confidence_interval.high - given.confidence_interval.low
    assert ours.method == "bca"
    assert (ours.low, ours.high) == pytest.approx(given.confidence_interval, abs=0.05 * width)
    # With the draws that scipy made, both are the same number.
    same = bootstrap_interval(MEASURED.value, given.bootstrap_distribution, left_out_values(MEASURED), widened=False)
    assert (same.low, same.high) == pytest.approx(given.confidence_interval, rel=1e-9)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def test_it_is_skewed_as_the_draws_are_and_wider_in_small_samples() -> None:
    draws = bootstrap_values([MEASURED], Resampling())[:, 0]
    narrow, wide = (
        bootstrap_interval(MEASURED.value, draws, left_out_values(MEASURED), widened=each) for each in (False, True)
    )
    assert narrow.high - MEASURED.value > MEASURED.value - narrow.low
    assert wide.low < narrow.low and wide.high > narrow.high


def test_percentile_stands_in_where_bca_does_not_exist() -> None:
    draws = np.linspace(0.0, 1.0, 1001)
    constant = bootstrap_interval(0.5, draws, np.full(10**6, 0.5))
    assert constant.method == "percentile"
    assert (constant.low, constant.high) == pytest.approx((0.025, 0.975), abs=1e-4)
    beyond = bootstrap_interval(2.0, draws, np.linspace(0.0, 1.0, 30))
    assert beyond.method == "percentile"


def test_a_difference_is_read_by_percentile_at_levels_of_t() -> None:
    draws = np.random.default_rng(0).permutation(np.linspace(0.0, 1.0, 100_001))
    found = difference_interval(draws, 20)
    edge = (20 / 19) ** 0.5 * t.ppf(0.975, 19)
    assert found.method == "percentile"
    assert (found.low, found.high) == pytest.approx((norm.cdf(-edge), norm.cdf(edge)), abs=1e-5)


def test_draws_that_are_all_alike_say_nothing() -> None:
    assert difference_interval(np.zeros(100), 20).method == "none"
    assert bootstrap_interval(0.0, np.zeros(100), np.zeros(20)).method == "none"


def test_undefined_draws_are_counted_and_too_many_leave_no_interval() -> None:
    draws = np.linspace(0.0, 1.0, 1000)
    draws[:40] = math.nan
    some = bootstrap_interval(0.5, draws, np.linspace(0.4, 0.6, 50))
    assert some.undefined == pytest.approx(0.04) and some.low < some.high
    draws[:60] = math.nan
    many = bootstrap_interval(0.5, draws, np.linspace(0.4, 0.6, 50))
    assert many.method == "none" and math.isnan(many.low) and many.undefined == pytest.approx(0.06)


def test_a_handful_of_examples_has_no_interval() -> None:
    draws = np.linspace(0, 1, 100)
    assert [difference_interval(draws, n).method for n in (1, 5, 6)] == ["none", "none", "percentile"]
    assert [bootstrap_interval(0.5, draws, draws[:n]).method for n in (2, 5, 6)] == ["none", "none", "bca"]
    assert bootstrap_interval(1.0, np.ones(100), np.array([math.nan])).method == "none"


@pytest.mark.parametrize("n", [1, 20, 300])
def test_a_rate_that_was_never_seen(n: int) -> None:
    assert never_seen_in(n) == pytest.approx(beta.ppf(0.975, 1, n), rel=1e-9)
