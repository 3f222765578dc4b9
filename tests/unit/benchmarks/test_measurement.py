"""Measurements know whether their target is met, and survive JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.measurement import Measurement, at_least, at_most


@pytest.mark.parametrize(("value", "met"), [(0.9, False), (1.0, True), (1.1, True), (math.nan, False)])
def test_at_least_takes_the_bound_and_all_above(value: float, met: bool) -> None:
    assert at_least("speed", value, 1.0).met is met


@pytest.mark.parametrize(("value", "met"), [(0.9, True), (1.0, True), (1.1, False), (math.nan, False)])
def test_at_most_takes_the_bound_and_all_below(value: float, met: bool) -> None:
    assert at_most("memory", value, 1.0).met is met


def test_without_a_target_nothing_is_met_or_missed() -> None:
    assert Measurement("speed", 1.0).met is None


def test_numbers_of_numpy_survive_it_too() -> None:
    row = at_most("memory", np.float32(2.0), 1.0, peers={"the other": np.float64(3.0)})
    assert Measurement.from_fields(json.loads(json.dumps(row.to_fields()))) == row


@pytest.mark.parametrize(
    "row",
    [
        Measurement("speed", 1.5),
        at_most("memory", 2.0, 1.0, unit="MiB", digits=0, peers={"the other": 3.0}, note="one process"),
    ],
)
def test_it_survives_json(row: Measurement) -> None:
    assert Measurement.from_fields(json.loads(json.dumps(row.to_fields()))) == row
