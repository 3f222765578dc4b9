"""Examples drawn with replacement, left out one by one, and swapped between two models.

Shapes: N examples, M additive statistics, K models, D draws. Draws are made in blocks, so that memory does not grow
with their number; one seed gives one sequence of draws, whatever is measured on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from evaluation.metric import Measured, Metric

BLOCK = 2**22
"""Weights that are held at a time: 32 MiB of float64."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How often examples are drawn, and from which seed."""

    draws: int = 10_000
    seed: int = 0


def bootstrap_values(measured: Sequence[Measured], how: Resampling) -> Float64[np.ndarray, "D K"]:
    """Each metric on every bootstrap sample of the examples: within a draw all weigh the examples alike.

    How often each example is drawn is multinomial, and the sums of a sample are those weights times the rows.
    """
    n = len(measured[0].sums)
    values = np.empty((how.draws, len(measured)))
    random = np.random.default_rng(how.seed)
    for block in _blocks(how.draws, n):
        weights = _multinomial(random, block.stop - block.start, n)
        for column, each in enumerate(measured):
            values[block, column] = finished(each.metric, weights @ each.sums)
    return values


def left_out_values(measured: Measured) -> Float64[np.ndarray, " N"]:
    """The metric without each of the examples in turn (jackknife)."""
    return finished(measured.metric, measured.sums.sum(axis=0) - measured.sums)


def swapped_differences(
    metric: Metric, baseline: Float64[np.ndarray, "N M"], model: Float64[np.ndarray, "N M"], how: Resampling
) -> tuple[Float64[np.ndarray, " D"], bool]:
    """Differences (model - baseline) after the rows of each example were swapped, or not, with even chances.

    Rows that are equal cannot matter, so only those that differ are swapped. Where these are few enough, all ways to
    swap them are gone through, and the second value is True; else `how.draws` of them are drawn.
    """
    apart = model - baseline
    apart = apart[np.any(apart != 0.0, axis=1)]
    n = len(apart)
    exact = 2**n <= how.draws
    draws = 2**n if exact else how.draws
    random = np.random.default_rng(how.seed)
    first, second = baseline.sum(axis=0), model.sum(axis=0)
    differences = np.empty(draws)
    for block in _blocks(draws, n):
        count = block.stop - block.start
        if exact:
            swaps = (np.arange(block.start, block.stop)[:, None] >> np.arange(n)) & 1
        else:
            swaps = random.integers(0, 2, size=(count, n), dtype=np.int8)
        moved = swaps.astype(np.float64) @ apart
        differences[block] = finished(metric, second - moved) - finished(metric, first + moved)
    return differences, exact


def finished(metric: Metric, sums: Float64[np.ndarray, "*D M"]) -> Float64[np.ndarray, "*D"]:
    """The metric of these sums; NaN, and no warning, where it is undefined or beyond what a number can hold."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = np.asarray(metric.finish(sums), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _blocks(draws: int, n: int) -> Iterator[slice]:
    size = max(1, BLOCK // max(1, n))
    return (slice(start, min(start + size, draws)) for start in range(0, draws, size))


def _multinomial(random: np.random.Generator, draws: int, n: int) -> Float64[np.ndarray, "D N"]:
    """How often each of `n` examples comes in `n` draws with replacement; faster by counting than by `multinomial`."""
    drawn = random.integers(0, n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)
