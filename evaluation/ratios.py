"""Ratios of sums, as most metrics are, and their standard error."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray


def ratio_of(sums: Float64[np.ndarray, "*D 2"]) -> Float64[np.ndarray, "*D"]:
    """The first sum for each unit of the second: a total and how many there were. NaN where there were none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


def ratio_stderr(sums: NDArray[np.float64], counts: NDArray[np.number]) -> float:
    """Standard error of a ratio of sums over sequences (linearised): tokens of one answer are not independent.

    NaN for fewer than two sequences, and where nothing was counted.
    """
    n, total = len(sums), float(counts.sum())
    if n < 2 or total == 0:
        return float("nan")
    residual = sums - counts * (sums.sum() / total)
    return float(np.sqrt((residual**2).sum() * n / (n - 1)) / total)
