"""From statistics of answers to statistics of rows.

A row that was answered under several evaluation seeds is one row of sums: its answers are not independent of each
other, so resampling draws rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from evaluation.results import TaskExample

Numbers = Float64[np.ndarray, "*D"] | np.float64
"""As many as there are draws; numpy makes a scalar of an array without dimensions."""


def row_numbers(examples: Sequence[TaskExample]) -> tuple[int, ...]:
    """The rows that were answered, in the order in which `row_sums` has them."""
    return tuple(sorted({example.row for example in examples}))


def row_sums(examples: Sequence[TaskExample], statistics: ArrayLike, *, columns: int) -> Float64[np.ndarray, "N M"]:
    """Add up the statistics of each row's answers: A answers, N rows, M = `columns`."""
    order, places = np.unique(np.array([example.row for example in examples], dtype=np.int64), return_inverse=True)
    sums = np.zeros((len(order), columns))
    np.add.at(sums, places, np.asarray(statistics, dtype=np.float64).reshape(len(examples), columns))
    return sums


def ratio(over: Numbers, under: Numbers) -> Float64[np.ndarray, "*D"]:
    """`over / under`, NaN where `under` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(under == 0, np.nan, over / under))
