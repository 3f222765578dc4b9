"""What a comparison could have seen: "no difference" on 20 examples says little, and how little is a number."""

from __future__ import annotations

import math

from scipy.special import ndtri
from scipy.stats import beta

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
    return float(beta.ppf(POWER, FEWEST_SWAPS, n - FEWEST_SWAPS + 1)) if n >= FEWEST_SWAPS else math.nan
