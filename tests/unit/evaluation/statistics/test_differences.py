"""The value that a report shows: estimates, verdicts, undefined metrics, and small simulations of what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import F1, KL, MACRO_F1, POPULATIONS, hits, labelled
from scipy.stats import ttest_rel

from evaluation.metric import Measured
from evaluation.statistics.differences import compare_models, estimate
from evaluation.statistics.resampling import Resampling

RANDOM = np.random.default_rng(2)
LOSSES = RANDOM.normal(1.0, 0.3, 200)
ONES = np.ones(200)


def nats(losses: np.ndarray) -> Measured:
    return Measured(KL, np.stack([losses, np.ones(len(losses))], axis=1))


def test_an_estimate_is_the_value_with_the_interval_of_t() -> None:
    found = estimate(nats(LOSSES))
    spread = 1.972 * LOSSES.std(ddof=1) / math.sqrt(200)
    assert (found.value, found.n) == (pytest.approx(LOSSES.mean()), 200)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (LOSSES.mean() - spread, LOSSES.mean() + spread), abs=0.003
    )


def test_all_hits_are_not_certainty() -> None:
    perfect, none = estimate(hits([1] * 20)), estimate(hits([0] * 20))
    assert (perfect.interval.low, perfect.interval.high) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    assert (none.interval.low, none.interval.high) == (0.0, pytest.approx(0.1684, abs=1e-4))
    assert perfect.interval.method == "exact"


def test_lower_nats_are_better_and_the_pairs_are_what_is_compared() -> None:
    found = compare_models(
        nats(LOSSES), {"less": nats(LOSSES - 0.05 + 0.1 * RANDOM.normal(size=200)), "more": nats(LOSSES + 0.1)}
    )
    less, more = found["less"], found["more"]
    assert (less.verdict, more.verdict) == ("better", "worse")
    assert less.relative == pytest.approx(less.estimate / LOSSES.mean())
    assert less.low < less.estimate < less.high < 0
    assert (less.n, less.differing) == (200, 200)
    # Paired: the spread between examples (0.3) is not in it.
    assert less.high - less.low == pytest.approx(2 * 1.972 * 0.1 / math.sqrt(200), rel=0.2)


def test_p_values_agree_with_a_paired_t_test() -> None:
    other = LOSSES + 0.02 + 0.15 * RANDOM.normal(size=200)
    found = compare_models(nats(LOSSES), {"other": nats(other)})["other"]
    assert found.p == pytest.approx(ttest_rel(other, LOSSES).pvalue, abs=0.02)
    assert found.detectable == pytest.approx(2.8016 * (other - LOSSES).std(ddof=1) / math.sqrt(200), rel=0.03)


def test_holm_is_over_the_models_of_the_table() -> None:
    first = hits([0] * 6 + [1] * 30)
    gain = hits([1] * 36)
    alone = compare_models(first, {"a": gain})["a"]
    assert (alone.p, alone.p_holm, alone.verdict) == (2 / 64, 2 / 64, "better")
    beside = compare_models(first, {"a": gain, "b": first})
    assert (beside["a"].p, beside["a"].p_holm, beside["a"].verdict) == (2 / 64, 4 / 64, "no difference seen")


def test_models_that_never_differ_say_what_could_have_been_seen() -> None:
    same = compare_models(hits([1, 0] * 20), {"same": hits([1, 0] * 20)})["same"]
    assert (same.estimate, same.p, same.differing, same.verdict) == (0.0, 1.0, 0, "no difference seen")
    assert (same.low, same.high) == (pytest.approx(-0.0881, abs=1e-4), pytest.approx(0.0881, abs=1e-4))
    assert 0.15 < same.detectable < 0.25
    in_nats = compare_models(nats(LOSSES), {"same": nats(LOSSES)})["same"]
    assert math.isnan(in_nats.low) and math.isnan(in_nats.detectable) and in_nats.verdict == "no difference seen"


def test_an_undefined_metric_is_named_and_leaves_the_others_alone() -> None:
    found = compare_models(
        Measured(F1, np.tile([1.0, 0.0, 1.0], (20, 1))),
        {"silent": Measured(F1, np.zeros((20, 3))), "good": Measured(F1, np.tile([2.0, 0.0, 0.0], (20, 1)))},
    )
    assert found["silent"].verdict == "undefined"
    assert math.isnan(found["silent"].estimate) and math.isnan(found["silent"].p_holm)
    assert found["silent"].undefined == 1.0
    assert found["good"].verdict == "better"
    assert found["good"].p_holm == found["good"].p


def test_a_class_that_some_draws_miss_is_counted() -> None:
    gold = np.array([0] * 20 + [1] * 20 + [2])
    found = estimate(Measured(MACRO_F1, labelled(gold, gold)))
    assert found.interval.undefined == pytest.approx((1 - 1 / 41) ** 41, abs=0.02)
    assert math.isnan(found.interval.low)


def test_a_table_compares_like_with_like() -> None:
    with pytest.raises(ValueError, match="short: accuracy on 3 examples cannot be compared with accuracy on 4"):
        compare_models(hits([1, 1, 0, 1]), {"short": hits([1, 0, 1])})
    with pytest.raises(ValueError, match="other: kl on 4 examples"):
        compare_models(hits([1, 1, 0, 1]), {"other": nats(np.ones(4))})


def test_an_empty_table_has_no_differences() -> None:
    assert compare_models(hits([1, 0]), {}) == {}


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_the_intervals_hold_what_they_promise(name: str) -> None:
    """A small version of tests/slow/test_statistics.py."""
    population = POPULATIONS[name]
    value, apart = population.truth()
    random, repeats, held = np.random.default_rng(1), 150, np.zeros(2)
    for _ in range(repeats):
        first, second = (Measured(population.metric, rows) for rows in population.draw(random, 100))
        one = estimate(first, Resampling(draws=400)).interval
        two = compare_models(first, {"other": second}, Resampling(draws=400))["other"]
        held += [one.low <= value <= one.high, two.low <= apart <= two.high]
    assert np.all(held / repeats > 0.95 - 4 * math.sqrt(0.95 * 0.05 / repeats))
