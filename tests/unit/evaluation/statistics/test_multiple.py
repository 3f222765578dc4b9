"""Holm's step-down, by hand and against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.statistics.multiple import holm


def test_by_hand() -> None:
    # sorted: .01 * 4, .02 * 3, .03 * 2, .04 * 1, each at least the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_it_stops_at_one_and_keeps_order() -> None:
    assert holm([0.6, 0.5, 0.9]) == (1.0, 1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


def test_a_test_that_could_not_be_made_does_not_count() -> None:
    first, missing, last = holm([0.01, math.nan, 0.02])
    assert (first, last) == pytest.approx((0.02, 0.02))
    assert math.isnan(missing)


def test_it_rejects_what_the_step_down_procedure_rejects() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        p = random.random(5) ** 4
        rejected = np.zeros(5, dtype=bool)
        for rank, at in enumerate(np.argsort(p)):
            if p[at] > 0.05 / (5 - rank):
                break
            rejected[at] = True
        assert [value <= 0.05 for value in holm(p.tolist())] == rejected.tolist()
