"""What could have been seen, against textbook values and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import hits
from scipy.special import ndtri
from scipy.stats import binom, mannwhitneyu

from evaluation.statistics.permutation import permutation_p
from evaluation.statistics.power import detectable_area, detectable_difference, detectable_rate, detectable_share
from evaluation.statistics.resampling import Resampling


def test_the_textbook_factor() -> None:
    # 1.959964 + 0.841621
    assert detectable_difference(0.02) == pytest.approx(0.02 * 2.801585, rel=1e-6)


def test_six_of_n_have_to_change() -> None:
    rate = detectable_rate(40)
    assert binom.sf(5, 40, rate) == pytest.approx(0.8, rel=1e-9)
    assert math.isnan(detectable_rate(5))


def test_at_that_rate_four_of_five_comparisons_see_it() -> None:
    random = np.random.default_rng(0)
    rate, n = detectable_rate(40), 40
    seen = [
        permutation_p(hits([1] * n), hits(random.random(n) >= rate), Resampling(draws=500)) < 0.05 for _ in range(400)
    ]
    assert np.mean(seen) == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 400))


def test_at_that_area_four_of_five_comparisons_see_it() -> None:
    random, n = np.random.default_rng(0), 64
    apart = math.sqrt(2) * ndtri(0.5 + detectable_area(n, n))
    seen = [mannwhitneyu(random.normal(apart, 1, n), random.normal(size=n)).pvalue < 0.05 for _ in range(400)]
    assert np.mean(seen) == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 400))


@pytest.mark.parametrize(("n", "expected", "rejected"), [(10, 0.5, 9), (256, 0.01, 7), (40, 0.0, 1)])
def test_a_share_is_seen_when_chance_hardly_ever_gives_as_many(n: int, expected: float, rejected: int) -> None:
    assert binom.sf(rejected - 1, n, expected) <= 0.025 < binom.sf(rejected - 2, n, expected)
    assert binom.sf(rejected - 1, n, detectable_share(n, expected=expected)) == pytest.approx(0.8, rel=1e-9)


def test_too_few_rows_see_no_share() -> None:
    assert math.isnan(detectable_share(5, expected=0.5)) and not math.isnan(detectable_share(6, expected=0.5))
