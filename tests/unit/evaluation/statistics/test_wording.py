"""What a reader is told, word for word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import ACCURACY, F1, KL, hits

from evaluation.metric import Measured
from evaluation.statistics.differences import Difference, Verdict, compare_models
from evaluation.statistics.intervals import Interval
from evaluation.statistics.wording import change_in_words, in_words, interval_in_words, number_in_words, p_in_words


def difference(verdict: Verdict, *, differing: int = 80, undefined: float = 0.0, **changed: float) -> Difference:
    numbers = {
        "estimate": -0.0614,
        "low": -0.1,
        "high": -0.02,
        "relative": -0.07,
        "p": 0.002,
        "p_holm": 0.004,
        "detectable": 0.05,
    }
    return Difference(
        metric="accuracy", n=300, differing=differing, undefined=undefined, verdict=verdict, **(numbers | changed)
    )


@pytest.mark.parametrize(
    ("unit", "shown"), [("fraction", "61.4 %"), ("nats", "0.614 nats"), ("points", "0.6"), ("count", "0.6")]
)
def test_numbers_by_unit(unit: str, shown: str) -> None:
    assert number_in_words(0.614, unit) == shown
    assert number_in_words(math.nan, unit) == "undefined"


@pytest.mark.parametrize(
    ("unit", "shown"), [("fraction", "+61.4 pp"), ("nats", "+0.614 nats"), ("points", "+0.6"), ("count", "+0.6")]
)
def test_changes_by_unit(unit: str, shown: str) -> None:
    assert change_in_words(0.614, unit) == shown
    assert change_in_words(-0.614, unit) == shown.replace("+", "-")
    assert change_in_words(math.nan, unit) == "undefined"


def test_intervals() -> None:
    assert interval_in_words(Interval(0.614, 0.702, "bca", 0.0), "fraction") == "61.4 to 70.2 %"
    assert interval_in_words(Interval(0.5, 0.7, "bca", 0.0), "nats") == "0.500 to 0.700 nats"
    assert interval_in_words(Interval(math.nan, math.nan, "none", 0.0), "nats") == "no interval"
    assert (
        interval_in_words(Interval(math.nan, math.nan, "none", 0.12), "nats")
        == "no interval: undefined in 12% of the draws"
    )


def test_differences() -> None:
    assert in_words(difference("worse"), ACCURACY) == "worse by -6.1 pp, 95 %: -10.0 to -2.0 pp (p = 0.0040, n = 300)"
    assert in_words(difference("no difference seen"), ACCURACY) == "no difference seen (n = 300, detectable: 5.0 pp)"
    assert in_words(difference("better", undefined=0.013), KL) == (
        "better by -0.061 nats, 95 %: -0.100 to -0.020 nats (p = 0.0040, n = 300, undefined in 1.3% of the draws)"
    )
    assert in_words(difference("worse", low=math.nan, differing=7), ACCURACY) == (
        "worse by -6.1 pp (p = 0.0040, n = 300, 7 of them differ)"
    )


def test_what_cannot_be_said_is_said() -> None:
    silent = compare_models(Measured(F1, np.eye(4, 3)), {"silent": Measured(F1, np.zeros((4, 3)))})["silent"]
    assert in_words(silent, F1) == "undefined (n = 4, undefined in 100.0% of the draws)"
    few = compare_models(hits([1, 0, 1]), {"few": hits([1, 0, 1])})["few"]
    assert in_words(few, ACCURACY) == "no difference seen (n = 3, 0 of them differ, too few to detect any)"


def test_p_values() -> None:
    assert [p_in_words(p) for p in (1.0, 0.04, 0.0001, math.nan)] == ["1.00", "0.04", "0.0001", "undefined"]
