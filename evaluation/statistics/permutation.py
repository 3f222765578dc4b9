"""Would a difference like this one be seen if it did not matter which of the two models answered?"""

from __future__ import annotations

import math

import numpy as np

from evaluation.metric import Measured
from evaluation.statistics.intervals import MOST_UNDEFINED
from evaluation.statistics.resampling import Resampling, finished, swapped_differences

ROUNDING = 1e-9
"""Two differences are equal within this fraction: sums in another order are not equal to the last bit."""


def permutation_p(baseline: Measured, model: Measured, how: Resampling) -> float:
    """Two-sided p of the paired difference: the share of swaps that are at least as far from 0.

    All swaps where they are few enough, else random ones and the observed one (Phipson and Smyth 2010: the + 1), so
    that p is never 0. An undefined difference counts as far. NaN where the difference itself is undefined, or more than
    a twentieth of the swaps are.
    """
    metric = baseline.metric
    totals = finished(metric, np.stack([baseline.sums.sum(axis=0), model.sums.sum(axis=0)]))
    seen = abs(float(totals[1] - totals[0]))
    swapped, exact = swapped_differences(metric, baseline.sums, model.sums, how)
    undefined = np.isnan(swapped)
    if math.isnan(seen) or undefined.mean() > MOST_UNDEFINED:
        return math.nan
    scale = ROUNDING * max(seen, float(np.abs(totals).max()))
    far = int(np.count_nonzero(undefined | (np.abs(swapped) >= seen - scale)))
    return far / len(swapped) if exact else (1 + far) / (1 + len(swapped))
