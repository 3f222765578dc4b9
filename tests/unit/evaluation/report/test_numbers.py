from __future__ import annotations

import math

import pytest

from evaluation.report.numbers import MISSING, Unit, clock, interval, money, written


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.9312, "fraction", "93.1 %"),
        (0.5123, "nats", "0.512"),
        (41.234, "points", "41.2"),
        (12345, "tokens", "12,345"),
        (134_515_008, "parameters", "135 M"),
        (4_000, "parameters", "4.00 k"),
        (46_200_000, "bytes", "46.2 MB"),
        (999_600, "bytes", "1000 kB"),
        (12, "bytes", "12.0 B"),
        (0, "bytes", "0 B"),
        (0.0123, "seconds", "12.3 ms"),
        (0.0000123, "seconds", "12.3 µs"),
        (59.0, "seconds", "59.0 s"),
        (125.0, "seconds", "2 min 05 s"),
        (0.42, "joules", "420 mJ"),
        (0.81, "grams", "810 mg"),
        (1250.4, "per second", "1,250 /s"),
        (1.26, "per second", "1.3 /s"),
    ],
)
def test_a_number_as_it_is_read(value: float, unit: Unit, shown: str) -> None:
    assert written(value, unit) == shown


@pytest.mark.parametrize("unit", ["fraction", "nats", "points", "count", "bytes", "seconds", "joules", "tokens"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_was_not_measured_is_said_in_words(value: float, unit: Unit) -> None:
    assert written(value, unit) == MISSING
    assert interval(value, 1.0, unit) == ""
    assert interval(0.0, value, unit) == ""


def test_an_interval_names_its_unit_once() -> None:
    assert interval(0.614, 0.702, "fraction") == "61.4 to 70.2 %"
    assert interval(0.51, 0.6, "nats") == "0.510 to 0.600"


def test_long_times() -> None:
    assert clock(60) == "1 min 00 s"
    assert clock(3599.6) == "1 h 00 min"
    assert clock(7 * 3600 + 7 * 60) == "7 h 07 min"


def test_money() -> None:
    assert money(1.234, "EUR") == "1.23 EUR"
    assert money(0.00512, "EUR") == "0.005 EUR"
    assert money(0.0, "EUR") == "0.00 EUR"
    assert money(math.nan, "") == "no prices set"
