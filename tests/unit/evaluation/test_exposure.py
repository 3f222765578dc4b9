"""Exposure bias by hand, and on chains whose every expectation is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.exposure import excess_curve, excess_error, exposure_of, own_reverse_kl
from evaluation.sampled import sampled_reverse_kl

Rows = list[NDArray[np.float64]]


def rows(*answers: list[float]) -> Rows:
    return [np.array(answer, dtype=np.float64) for answer in answers]


def test_the_excess_by_hand() -> None:
    """Free 1, then 3, then 4; forced 1, then 1, then 2: 0 %, 4/2 - 1 = 100 %, 8/4 - 1 = 100 %."""
    found = exposure_of(rows([1, 2, 4], [1, 4]), rows([1, 1, 2], [1, 1, 2]), rows([0.5, 0.5, 0.5], [1.0, -0.5]))
    assert excess_curve(found) == pytest.approx((0.0, 1.0, 1.0))
    assert (found.free, found.free_counts) == ((2.0, 6.0, 4.0), (2, 2, 1))
    # Over tokens: 12 nats of 5 against 8 of 6.
    assert excess_error(found).value == pytest.approx((12 / 5) / (8 / 6) - 1)
    assert own_reverse_kl(found).value == pytest.approx(2.0 / 5)
    assert (found.reverse_sums, found.lengths) == ((1.5, 0.5), (3, 2))


def test_the_reverse_divergence_is_that_of_sampled_answers() -> None:
    rng = np.random.default_rng(0)
    q, p = [[-rng.random(n) for n in (3, 5, 2)] for _ in range(2)]
    found = exposure_of(q, q, [a - b for a, b in zip(q, p, strict=True)])
    assert own_reverse_kl(found).value == pytest.approx(sampled_reverse_kl(zip(q, p, strict=True)).a_token)


def test_positions_that_few_answers_reach_do_not_count() -> None:
    few = exposure_of(
        rows([1, 1, 99], [1, 1], [1, 1], [1, 1]), rows([1, 1], [1, 1], [1, 1], [1, 1]), rows([0], [0], [0], [0])
    )
    assert excess_error(few).value == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("free", "forced"), [(rows(), rows()), (rows([], []), rows([], [])), (rows([1.0], [1.0]), rows([0.0], [0.0]))]
)
def test_where_there_is_nothing_to_exceed_it_is_undefined(free: Rows, forced: Rows) -> None:
    found = exposure_of(free, forced, free)
    assert all(map(math.isnan, excess_curve(found)))
    assert math.isnan(excess_error(found).value)


def walk(rng: np.random.Generator, *, slips: float, length: int) -> NDArray[np.float64]:
    """Divergences of a model that, after a slip, is lost for good: 0.1 nats on the teacher's path, 1.1 off it."""
    lost = np.cumsum(rng.random(length) < slips) > 0
    return 0.1 + np.concatenate([[0.0], lost[:-1]])


def test_mistakes_that_pile_up_show_in_the_curve() -> None:
    """The chance to be lost before position t is 1 - (1 - s)^(t - 1), so every point of the curve is known."""
    rng, slips, length = np.random.default_rng(1), 0.1, 12
    free = [walk(rng, slips=slips, length=length) for _ in range(4000)]
    forced = [np.full(length, 0.1)] * 4000
    curve = excess_curve(exposure_of(free, forced, free))
    lost = 1 - (1 - slips) ** np.arange(length)
    expected = np.cumsum(0.1 + lost) / (0.1 * np.arange(1, length + 1)) - 1
    assert curve == pytest.approx(expected, rel=0.06, abs=1e-9)


def test_a_model_that_makes_no_mistakes_of_its_own_has_no_excess() -> None:
    same = rows([0.1, 0.2], [0.3])
    found = exposure_of(same, same, same)
    assert excess_curve(found) == pytest.approx((0.0, 0.0)) and excess_error(found).value == 0.0
