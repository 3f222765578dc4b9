"""The standard error of a ratio of sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ratio_stderr(sums: NDArray[np.float64], counts: NDArray[np.number]) -> float:
    """Standard error of a ratio of sums over sequences (linearised): tokens of one answer are not independent.

    NaN for fewer than two sequences, and where nothing was counted.
    """
    n, total = len(sums), float(counts.sum())
    if n < 2 or total == 0:
        return float("nan")
    residual = sums - counts * (sums.sum() / total)
    return float(np.sqrt((residual**2).sum() * n / (n - 1)) / total)
