"""How the numbers of a report are written: digits that mean something, SI prefixes, and words where there is none."""

from __future__ import annotations

import math
from typing import Literal

Unit = Literal[
    "fraction",
    "nats",
    "bits",
    "points",
    "count",
    "parameters",
    "bytes",
    "seconds",
    "joules",
    "tokens",
    "per second",
    "grams",
]

MISSING = "not measured"
"""What stands where a number is NaN: it was not, or could not be, measured."""

Number = float | int

NO_PRICES = "no prices set"

ABSENT = frozenset({MISSING, NO_PRICES, "unknown", "not set"})
"""Words that stand for a number or a value that is not there."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))

_SYMBOLS = {"bytes": "B", "seconds": "s", "joules": "J", "grams": "g", "parameters": "", "per second": "/s"}


def written(value: Number, unit: Unit) -> str:
    """A number with its unit; `MISSING` for NaN and infinity."""
    if not math.isfinite(value):
        return MISSING
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if unit == "nats":
        return f"{value:.3f}"
    if unit in ("points", "bits"):
        return f"{value:.1f}"
    if unit in ("count", "tokens"):
        return f"{value:,.0f}"
    if unit == "seconds" and abs(value) >= 60:
        return clock(value)
    return _with_prefix(value, unit)


def interval(low: Number, high: Number, unit: Unit) -> str:
    """A 95 % interval, `low to high`; the unit of a fraction stands once. Empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{written(low, unit).removesuffix(' %')} to {written(high, unit)}"


def clock(seconds: Number) -> str:
    """A duration from a minute upwards: `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def money(value: Number, currency: str) -> str:
    """An amount; from a hundredth on with two digits, below with two that count."""
    if not math.isfinite(value):
        return NO_PRICES
    if value and abs(value) < 0.01:
        return f"{value:.1g} {currency}"
    return f"{value:,.2f} {currency}"


def _with_prefix(value: Number, unit: Unit) -> str:
    symbol = _SYMBOLS[unit]
    if value == 0:
        return f"0 {symbol}".rstrip()
    # Bytes and parameters come whole; a rate keeps its digits, 1,250 /s is read faster than 1.25 k/s.
    if unit == "per second":
        return f"{value:,.0f} {symbol}" if abs(value) >= 10 else f"{value:.2g} {symbol}"
    least = 1.0 if unit in ("bytes", "parameters") else 0.0
    scale, prefix = next(
        ((scale, prefix) for scale, prefix in _PREFIXES if abs(value) >= scale >= least), _PREFIXES[-1]
    )
    return f"{_three_digits(value / scale)} {prefix}{symbol}".rstrip()


def _three_digits(value: Number) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
