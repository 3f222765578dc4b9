"""Numbers, intervals and differences as a reader of a table sees them."""

from __future__ import annotations

import math

from evaluation.metric import Metric
from evaluation.statistics.differences import Difference
from evaluation.statistics.intervals import Interval

FEW_DIFFERING = 10
"""With fewer examples that differ, the interval comes from a handful of rows and is too narrow."""

_FORMATS = {
    "fraction": (100.0, ".1f", " %"),
    "nats": (1.0, ".3f", " nats"),
    "points": (1.0, ".1f", ""),
    "bits": (1.0, ".1f", " bits"),
}
_OTHER = (1.0, ".1f", "")


def number_in_words(value: float, unit: str) -> str:
    """A number of a `Metric.unit`: 0.614 as "61.4 %", "0.520 nats", "23.1"; "undefined" for NaN."""
    if math.isnan(value):
        return "undefined"
    scale, digits, suffix = _FORMATS.get(unit, _OTHER)
    return f"{scale * value:{digits}}{suffix}"


def change_in_words(value: float, unit: str) -> str:
    """A difference of such numbers, with its sign: that of fractions in percentage points (pp)."""
    shown = number_in_words(value, unit).replace(" %", " pp")
    return shown if math.isnan(value) or value < 0 else f"+{shown}"


def interval_in_words(interval: Interval, unit: str) -> str:
    """Such as "61.4 to 70.2 %"; where there is no interval, why."""
    if not math.isnan(interval.low):
        return _range(number_in_words(interval.low, unit), number_in_words(interval.high, unit))
    reason = f": undefined in {interval.undefined:.0%} of the draws" if interval.undefined else ""
    return f"no interval{reason}"


def in_words(difference: Difference, metric: Metric) -> str:
    """A difference as a phrase: what was seen, how surely, or what could have been seen."""
    if difference.verdict == "undefined":
        return f"undefined (n = {difference.n}{_undefined(difference)})"
    if difference.verdict == "no difference seen":
        detectable = change_in_words(difference.detectable, metric.unit).removeprefix("+")
        reach = f"detectable: {detectable}" if not math.isnan(difference.detectable) else "too few to detect any"
        return f"no difference seen (n = {difference.n}{_few(difference)}, {reach}{_undefined(difference)})"
    by = change_in_words(difference.estimate, metric.unit)
    between = ""
    if not math.isnan(difference.low):
        low, high = (change_in_words(bound, metric.unit) for bound in (difference.low, difference.high))
        between = f", 95 %: {_range(low, high)}"
    return (
        f"{difference.verdict} by {by}{between} "
        f"(p = {p_in_words(difference.p_holm)}, n = {difference.n}{_few(difference)}{_undefined(difference)})"
    )


def p_in_words(p: float) -> str:
    """A p-value with as many digits as 10,000 draws can carry."""
    if math.isnan(p):
        return "undefined"
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _range(low: str, high: str) -> str:
    """The unit is said once."""
    number, _, unit = low.partition(" ")
    return f"{number if unit else low} to {high}"


def _few(difference: Difference) -> str:
    return f", {difference.differing} of them differ" if difference.differing < FEW_DIFFERING else ""


def _undefined(difference: Difference) -> str:
    return f", undefined in {difference.undefined:.1%} of the draws" if difference.undefined else ""
