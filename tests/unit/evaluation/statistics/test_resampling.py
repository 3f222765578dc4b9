"""Draws: multinomial, paired, the same for one seed, in blocks that change nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from metric_builders import ACCURACY, F1, KL, hits

from evaluation.metric import Measured
from evaluation.statistics import resampling
from evaluation.statistics.resampling import Resampling, bootstrap_values, left_out_values, swapped_differences

ROWS = np.random.default_rng(3).gamma(2.0, 1.0, (40, 2))


def test_the_draws_are_those_of_indices_drawn_with_replacement() -> None:
    values = bootstrap_values([Measured(KL, ROWS)], Resampling(draws=500, seed=5))[:, 0]
    drawn = np.random.default_rng(5).integers(0, 40, size=(500, 40))
    np.testing.assert_allclose(values, ROWS[drawn, 0].sum(axis=1) / ROWS[drawn, 1].sum(axis=1), rtol=1e-12)


def test_models_are_drawn_alike() -> None:
    values = bootstrap_values([Measured(KL, ROWS), Measured(KL, ROWS * [3.0, 1.0])], Resampling(draws=200))
    np.testing.assert_allclose(values[:, 1], 3 * values[:, 0], rtol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, how = [Measured(KL, ROWS)], Resampling(draws=101)
    whole = bootstrap_values(measured, how)
    swapped = swapped_differences(KL, ROWS, ROWS * [1.5, 1.0], how)
    monkeypatch.setattr(resampling, "BLOCK", 7 * 40)
    # The same draws. A product's last bit may depend on its size, on some processors.
    np.testing.assert_allclose(bootstrap_values(measured, how), whole, rtol=1e-14)
    assert swapped_differences(KL, ROWS, ROWS * [1.5, 1.0], how)[0].shape == swapped[0].shape


def test_a_seed_is_a_sequence_of_draws() -> None:
    first, again, other = (bootstrap_values([Measured(KL, ROWS)], Resampling(50, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_jackknife_leaves_out_one_at_a_time() -> None:
    expected = [np.delete(ROWS, at, axis=0).sum(axis=0) for at in range(40)]
    np.testing.assert_allclose(left_out_values(Measured(KL, ROWS)), [a / b for a, b in expected], rtol=1e-12)


def test_few_rows_that_differ_are_swapped_in_every_way() -> None:
    first, second = hits([1, 0, 0, 1, 1]), hits([1, 1, 1, 1, 0])
    found, exact = swapped_differences(ACCURACY, first.sums, second.sums, Resampling())
    pairs = [(0, 1), (0, 1), (1, 0)]
    by_hand = [
        sum((a - b if swap else b - a) for swap, (a, b) in zip(swaps, pairs, strict=True)) / 5
        for swaps in product((0, 1), repeat=3)
    ]
    assert exact
    np.testing.assert_allclose(sorted(found), sorted(by_hand), atol=1e-15)


def test_many_rows_are_swapped_at_random_and_evenly() -> None:
    found, exact = swapped_differences(KL, ROWS, ROWS * [1.5, 1.0], Resampling(draws=4000))
    assert not exact and len(found) == 4000
    assert abs(found.mean()) < 4 * found.std() / 4000**0.5


def test_what_is_undefined_is_nan_without_a_warning() -> None:
    values = bootstrap_values([Measured(F1, np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))], Resampling(draws=400))[:, 0]
    assert 0.15 < np.isnan(values).mean() < 0.35
    assert np.nanmax(values) == 1.0
