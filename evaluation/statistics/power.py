"""What a comparison could have seen: "no difference" on 20 examples says little, and how little is a number."""

from __future__ import annotations

import math

from scipy.special import betainc, betaincinv, ndtri

ALPHA = 0.05
POWER = 0.8

FEWEST_SWAPS = 6
"""So many examples have to differ, all in one direction, before a permutation test falls below ALPHA: 2 / 2^6."""


def detectable_difference(stderr: float) -> float:
    """The smallest difference that a two-sided test at ALPHA sees with probability POWER (Miller 2024, section 5)."""
    return float(ndtri(1 - ALPHA / 2) + ndtri(POWER)) * stderr


def detectable_rate(n: int) -> float:
    """The same where no example differed, so that there is no standard error: the share of `n` that has to change.

    With probability POWER at least `FEWEST_SWAPS` of them do. NaN with fewer examples than that.
    """
    return _least_share(FEWEST_SWAPS, of=n) if n >= FEWEST_SWAPS else math.nan


def detectable_area(members: int, others: int) -> float:
    """The smallest distance of an area under a ROC curve from a half that is seen, with so many rows on either side.

    Its standard error where the two are alike is that of the rank sum test (Hanley and McNeil 1982).
    """
    return detectable_difference(math.sqrt((members + others + 1) / (12 * members * others)))


def detectable_share(n: int, *, expected: float) -> float:
    """The smallest share above an `expected` one that `n` rows see: an exact two-sided test at ALPHA rejects it then.

    NaN where no count of so few rows would be rejected. With expected = 0 a single row is enough.
    """
    # That `count` or more of n rows are hit, of which each is with this probability.
    by_chance = ((count, betainc(count, n - count + 1, expected)) for count in range(1, n + 1))
    rejected = next((count for count, chance in by_chance if chance <= ALPHA / 2), None)
    return math.nan if rejected is None else _least_share(rejected, of=n)


def _least_share(count: int, *, of: int) -> float:
    """The share of rows with which `count` or more of them are hit with probability POWER (Clopper and Pearson)."""
    return float(betaincinv(count, of - count + 1, POWER))
