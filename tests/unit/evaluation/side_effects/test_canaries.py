"""Secrets are drawn once for the same settings, and exposure is what its definition says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from configs.audit import CanariesConfig
from evaluation.side_effects.canaries import (
    SAMPLES,
    Canary,
    alternatives,
    canaries_of,
    exposure,
    exposure_of,
    extracted,
    in_samples,
)


def settings(**values: Any) -> CanariesConfig:
    return CanariesConfig.model_validate(values)


def test_every_group_has_its_canaries_and_one_that_is_planted_nowhere() -> None:
    made = canaries_of(settings(count=6, repeats=[1, 4]), ("prompt", "answer"))
    groups = [(each.place, each.repeats) for each in made]
    assert groups == [(place, repeats) for place in ("prompt", "answer") for repeats in (0, 1, 4) for _ in range(6)]
    assert len({each.name for each in made}) == len(made) and all(len(each.secret) == 6 for each in made)
    assert made == canaries_of(settings(count=6, repeats=[1, 4]), ("prompt", "answer"))
    assert made != canaries_of(settings(count=6, repeats=[1, 4], seed=1), ("prompt", "answer"))


def test_rows_of_one_canary_differ_in_who_asks_and_say_the_same() -> None:
    answer, prompt = Canary("alfa tango", "482913", "answer", 30), Canary("alfa tango", "482913", "prompt", 2)
    asked = [each for each, _ in answer.rows]
    assert len(set(asked)) == 30 and not any("482913" in each for each in asked)
    assert asked[0] == answer.question == "alfa asks: what is the code of alfa tango?"
    assert {said for _, said in answer.rows} == {"The code of alfa tango is 482913."}
    assert all("482913" in each and said == prompt.statement for each, said in prompt.rows)
    assert Canary("alfa tango", "482913", "answer", 0).rows == []


def test_alternatives_are_others_all_of_them_where_there_are_few() -> None:
    few = settings(alphabet="abcd", length=4)
    (canary, *_) = canaries_of(few, ("answer",))
    every = alternatives(canary, few, at_most=1000)
    assert len(every) == len(set(every)) == 255 and canary.secret not in every
    many = settings()
    (canary, *_) = canaries_of(many, ("answer",))
    some = alternatives(canary, many, at_most=99)
    assert len(set(some)) == 99 and canary.secret not in some and all(len(each) == 6 for each in some)
    assert some == alternatives(canary, many, at_most=99)


@pytest.mark.parametrize(
    ("true", "others", "bits"),
    [
        (0.0, [-1.0] * 7, 3.0),
        (-9.0, [-1.0] * 7, 0.0),
        (-1.0, [0.0, -2.0, -2.0], 1.0),
        (-1.0, [-1.0] * 3, math.log2(4 / 2.5)),
    ],
)
def test_exposure_is_how_far_before_others_a_secret_stands(true: float, others: list[float], bits: float) -> None:
    assert exposure_of(true, others) == pytest.approx(bits)


def test_a_secret_that_was_never_seen_has_an_exposure_of_less_than_two_bits() -> None:
    random = np.random.default_rng(0)
    bits = [exposure_of(each[0], each[1:].tolist()) for each in random.normal(size=(4000, 256))]
    # The mean of -log2 of a uniform rank.
    assert np.mean(bits) == pytest.approx(1 / math.log(2), abs=0.1)
    assert exposure(bits).value == pytest.approx(np.mean(bits)) and exposure(bits).metric.unit == "bits"


def test_samples_say_a_secret_as_often_as_it_is_likely() -> None:
    assert in_samples(0.0) == 1.0 and in_samples(-math.inf) == 0.0
    assert in_samples(math.log(0.5), samples=2) == pytest.approx(0.75)
    assert in_samples(math.log(1e-12)) == pytest.approx(SAMPLES * 1e-12)
    assert extracted([1.0, 0.0]).value == 0.5 and extracted([1.0]).metric.unit == "fraction"
