"""95 % intervals from bootstrap draws.

One model's metric is read by BCa (Efron 1987, JASA 82:171): quantiles of the draws where bias and skewness say, not
where the level says. Macro-F1, perplexities and ratios are biased or skewed, and there BCa covers better. A paired
difference is read by percentile: what skews both models mostly cancels, and where few examples differ the skewness that
BCa corrects for is noise (of 100 examples with 8 that differ, 91 % cover instead of 93 %). BCa does not exist where
every draw lies on one side of the value, or where the metric is undefined without one of the examples: there percentile
stands in, and the method says so.

Both are widened for small samples (Hesterberg 2015, The American Statistician 69:371): draws spread like the sample,
whose variance is (n - 1) / n of what it should be, and a t quantile stands in for the normal one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr, ndtri, stdtrit

LEVEL = 0.95

MOST_UNDEFINED = 1.0 - LEVEL
"""With more undefined draws than this, what is left cannot hold the level, and there is no interval."""

FEWEST_EXAMPLES = 6
"""Fewer of them give too few different samples to read 95 % from."""

Method = Literal["bca", "percentile", "exact", "none"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, how it was made, and the fraction of draws on which the metric is undefined.

    NaN and "none" where there is none. "exact": nothing varied, and the bound is that of a rate that was never seen.
    """

    low: float
    high: float
    method: Method
    undefined: float


def bootstrap_interval(
    value: float, draws: Float64[np.ndarray, " D"], left_out: Float64[np.ndarray, " N"], *, widened: bool = True
) -> Interval:
    """The BCa interval of `value` from its bootstrap draws and its values without each example.

    NaN is undefined; such draws are left out of the quantiles and counted.
    """
    if math.isnan(value) or len(left_out) < FEWEST_EXAMPLES:
        return _none(draws)
    edges = _edges(len(left_out)) if widened else ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    levels = _bca_levels(edges, value, draws[~np.isnan(draws)], left_out)
    return _read(draws, ndtr(edges) if levels is None else levels, "percentile" if levels is None else "bca")


def difference_interval(draws: Float64[np.ndarray, " D"], n: int) -> Interval:
    """The percentile interval of a paired difference over `n` examples from its bootstrap draws; NaN is undefined."""
    return _read(draws, ndtr(_edges(n)), "percentile") if n >= FEWEST_EXAMPLES else _none(draws)


def never_seen_in(n: int) -> float:
    """The largest rate that is consistent, at 97.5 %, with no event in `n` (Clopper and Pearson 1934)."""
    return 1.0 - float(((1 - LEVEL) / 2) ** (1 / n))


def _read(draws: Float64[np.ndarray, " D"], levels: Float64[np.ndarray, "2"], method: Method) -> Interval:
    """Quantiles of the defined draws; none from draws that are all alike: what did not vary here may vary elsewhere."""
    defined = draws[~np.isnan(draws)]
    if _undefined(draws) > MOST_UNDEFINED or float(np.ptp(defined)) == 0.0:
        return _none(draws)
    low, high = np.quantile(defined, levels)
    return Interval(float(low), float(high), method, _undefined(draws))


def _none(draws: Float64[np.ndarray, " D"]) -> Interval:
    return Interval(math.nan, math.nan, "none", _undefined(draws))


def _undefined(draws: Float64[np.ndarray, " D"]) -> float:
    return float(np.isnan(draws).mean())


def _edges(n: int) -> Float64[np.ndarray, "2"]:
    edge = math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, (1 + LEVEL) / 2))
    return np.array([-edge, edge])


def _bca_levels(
    edges: Float64[np.ndarray, "2"],
    value: float,
    draws: Float64[np.ndarray, " D"],
    left_out: Float64[np.ndarray, " N"],
) -> Float64[np.ndarray, "2"] | None:
    """The levels at which BCa reads the draws (Efron 1987, eq. 6.4-6.6); a draw equal to the value is half below it."""
    if len(draws) == 0:
        return None
    below = float((np.mean(draws < value) + np.mean(draws <= value)) / 2)
    apart = left_out.mean() - left_out
    cubed = float((apart**2).sum() ** 1.5)
    # Undefined without one example (NaN), or the same without any.
    if not 0.0 < below < 1.0 or not cubed > 0.0:
        return None
    acceleration = float((apart**3).sum()) / (6 * cubed)
    bias = float(ndtri(below))
    shifted = bias + edges
    stretch = 1 - acceleration * shifted
    # Beyond its pole the transformation turns round.
    return np.asarray(ndtr(bias + shifted / stretch)) if np.all(stretch > 0) else None
