"""What could have been seen, against textbook values and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import hits
from scipy.stats import binom

from evaluation.statistics.permutation import permutation_p
from evaluation.statistics.power import detectable_difference, detectable_rate
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
