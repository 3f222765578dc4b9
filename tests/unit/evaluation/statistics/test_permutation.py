"""The permutation test against an exact binomial test and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import F1, KL, MACRO_F1, hits, labelled
from scipy.stats import binomtest, permutation_test

from evaluation.metric import Measured, Metric
from evaluation.statistics.permutation import permutation_p
from evaluation.statistics.resampling import Resampling


@pytest.mark.parametrize(("gained", "lost"), [(6, 0), (5, 0), (9, 2), (4, 4), (0, 3)])
def test_for_hits_it_is_the_exact_mcnemar_test(gained: int, lost: int) -> None:
    first = hits([1] * 20 + [0] * gained + [1] * lost)
    second = hits([1] * 20 + [1] * gained + [0] * lost)
    exact = binomtest(gained, gained + lost, 0.5).pvalue
    assert permutation_p(first, second, Resampling()) == pytest.approx(exact, rel=1e-12)


def test_models_that_answer_alike_have_p_1() -> None:
    assert permutation_p(hits([1, 0, 1]), hits([1, 0, 1]), Resampling()) == 1.0


def test_random_swaps_agree_with_scipy() -> None:
    random = np.random.default_rng(4)
    tokens = random.integers(5, 40, 50).astype(float)
    first, second = (np.stack([random.gamma(2, mean, 50) * tokens, tokens], axis=1) for mean in (0.5, 0.62))
    ours = permutation_p(Measured(KL, first), Measured(KL, second), Resampling())
    given = permutation_test(
        (first[:, 0], second[:, 0]),
        lambda a, b, axis: (b.sum(axis=axis) - a.sum(axis=axis)) / tokens.sum(),
        permutation_type="samples", n_resamples=10_000, vectorized=True, rng=0,
    )  # fmt: skip
    assert 0.01 < ours < 0.5
    assert ours == pytest.approx(given.pvalue, abs=4 * math.sqrt(2 * 0.25 / 10_000))


def test_p_is_never_zero() -> None:
    n = 60
    gold = np.arange(n) % 3
    good, bad = Measured(MACRO_F1, labelled(gold, gold)), Measured(MACRO_F1, labelled(gold, (gold + 1) % 3))
    assert permutation_p(bad, good, Resampling(draws=999)) == 1 / 1000


def test_which_model_comes_first_does_not_matter() -> None:
    first, second = hits([1, 1, 0, 1, 0, 0, 1, 1]), hits([0, 1, 0, 0, 0, 1, 0, 0])
    assert permutation_p(first, second, Resampling()) == permutation_p(second, first, Resampling())


def test_undefined_is_said() -> None:
    nothing = Measured(F1, np.zeros((4, 3)))
    something = Measured(F1, np.eye(4, 3))
    assert math.isnan(permutation_p(nothing, something, Resampling()))


def test_an_undefined_swap_counts_as_far_until_there_are_too_many() -> None:
    capped = Metric(
        "capped", better="higher", unit="points", finish=lambda s: np.where(s[..., 0] > 8.5, np.nan, s[..., 0])
    )
    first, second = np.zeros((10, 1)), np.ones((10, 1))
    first[:2] = 1.0
    second[2] = 0.0
    # Seven rows differ, 2 + 7 = 9 is undefined: 1 of 128 swaps on either side, and the total 9 of the second itself.
    assert math.isnan(permutation_p(Measured(capped, first), Measured(capped, second), Resampling()))
    second[3] = 0.0
    # Six rows differ, the total 8 is defined.
    assert permutation_p(Measured(capped, first), Measured(capped, second), Resampling()) == 2 / 64
