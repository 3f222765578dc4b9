"""Scores and curves of membership inference against loops over pairs and thresholds; matched rows; a known answer."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from evaluation.side_effects.membership import (
    found_at_few_false_positives,
    loss_score,
    matched,
    min_k_score,
    reference_score,
    separation,
    zlib_score,
)
from evaluation.statistics import Resampling, estimate


def logprobs(seed: int, length: int) -> np.ndarray:
    return -np.random.default_rng(seed).gamma(2.0, 1.0, length).astype(np.float32)


@pytest.mark.parametrize("length", [1, 4, 5, 9, 10, 37])
def test_scores_are_what_loops_in_float64_say(length: int) -> None:
    own, other, text = logprobs(length, length), logprobs(length + 100, length), "a text, a text, a text of é"
    values = [float(each) for each in own]
    assert loss_score(own) == pytest.approx(math.fsum(values) / length, abs=1e-12)
    gaps = [float(a) - float(b) for a, b in zip(own, other, strict=True)]
    assert reference_score(own, other) == pytest.approx(math.fsum(gaps) / length, abs=1e-12)
    assert zlib_score(own, text) == pytest.approx(
        math.fsum(values) / (8 * len(zlib.compress(text.encode()))), abs=1e-12
    )
    least = sorted(values)[: max(1, length // 5)]
    assert min_k_score(own) == pytest.approx(math.fsum(least) / len(least), abs=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_area_counts_pairs_and_ties_count_half(digits: int) -> None:
    random = np.random.default_rng(digits)
    members, others = random.normal(0.5, 1.0, 60).round(digits), random.normal(0.0, 1.0, 45).round(digits)
    above = sum((m > o) + 0.5 * (m == o) for m in members for o in others)
    assert separation(members.tolist(), others.tolist()).value == pytest.approx(above / (60 * 45), abs=1e-12)


@pytest.mark.parametrize("digits", [1, 8])
def test_found_at_few_false_positives_is_the_best_threshold_of_all(digits: int) -> None:
    random = np.random.default_rng(digits)
    members, others = random.normal(1.5, 1.0, 80).round(digits), random.normal(0.0, 1.0, 250).round(digits)
    best = 0.0
    for threshold in [*members, *others]:
        if np.mean(others >= threshold) <= 0.01:
            best = max(best, float(np.mean(members >= threshold)))
    assert best > 0
    assert found_at_few_false_positives(members.tolist(), others.tolist()).value == best


def test_one_in_a_hundred_takes_a_hundred() -> None:
    with pytest.raises(ValueError, match="99 held-out rows are too few"):
        found_at_few_false_positives([1.0] * 5, [0.0] * 99)


def test_without_a_difference_the_interval_holds_a_guess_and_with_one_it_does_not() -> None:
    random, how = np.random.default_rng(3), Resampling(draws=2000)
    same = estimate(separation(random.normal(size=150).tolist(), random.normal(size=150).tolist()), how)
    assert same.interval.low < 0.5 < same.interval.high
    apart = estimate(separation(random.normal(1.0, 1.0, 150).tolist(), random.normal(size=150).tolist()), how)
    assert 0.5 < apart.interval.low < apart.value < apart.interval.high < 1.0
    # A bootstrap that keeps the numbers of both groups, draw by draw.
    assert apart.interval.high - apart.interval.low == pytest.approx(_width_by_loops(), rel=0.25)


def test_nine_of_ten_intervals_and_more_hold_the_truth() -> None:
    # Two normal distributions one standard deviation apart: the area is Phi(1 / sqrt 2).
    truth, random, held = 0.5 * (1 + math.erf(0.5)), np.random.default_rng(11), 0
    for _ in range(100):
        made = separation(random.normal(1.0, 1.0, 50).tolist(), random.normal(size=50).tolist())
        interval = estimate(made, Resampling(draws=400)).interval
        held += interval.low <= truth <= interval.high
    assert held >= 90


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        separation([0.0, math.nan], [1.0])


def test_matched_rows_are_of_one_length_and_each_is_there_once() -> None:
    random = np.random.default_rng(0)
    members, others = random.integers(1, 200, 500).tolist(), random.integers(20, 60, 90).tolist()
    pairs = matched(members, others, at_most=1000)
    assert len(pairs) == 90
    assert len({pair.member for pair in pairs}) == len({pair.other for pair in pairs}) == 90
    assert all(pair.tokens == min(members[pair.member], others[pair.other]) for pair in pairs)
    apart = [abs(members[pair.member] - others[pair.other]) for pair in pairs]
    assert np.mean(apart) < 2.5
    # By lengths alone nothing can be told any more, as it could before.
    before = separation([float(each) for each in members], [float(each) for each in others]).value
    after = separation(
        [float(members[pair.member]) for pair in pairs], [float(others[pair.other]) for pair in pairs]
    ).value
    assert abs(before - 0.5) > 0.2 and abs(after - 0.5) < 0.05


def test_no_more_pairs_than_asked_for_and_none_of_empty_rows() -> None:
    assert len(matched([5] * 40, [5] * 30, at_most=7)) == 7
    assert matched([5] * 40, [5] * 30, at_most=7) == matched([5] * 40, [5] * 30, at_most=7)
    assert len(matched([5] * 3, [5] * 30, at_most=100)) == 3
    (pair,) = matched([0, 4], [0, 0, 9], at_most=100)
    assert (pair.member, pair.other, pair.tokens) == (1, 2, 4)


def _width_by_loops() -> float:
    random = np.random.default_rng(3)
    random.normal(size=300)
    members, others = random.normal(1.0, 1.0, 150), random.normal(size=150)
    again, areas = np.random.default_rng(5), []
    for _ in range(2000):
        drawn, against = again.choice(members, 150), np.sort(again.choice(others, 150))
        areas.append(np.searchsorted(against, drawn).mean() / 150)
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(high - low)


def test_texts_that_two_models_cut_differently_are_compared_by_their_size() -> None:
    own, other = np.array([-1.0, -3.0]), np.array([-1.0, -1.0, -4.0])
    assert loss_score(own) == -2.0 and loss_score(own, 8) == -0.5
    assert reference_score(own, other, 8) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="compared by the size of their text alone"):
        reference_score(own, other)
