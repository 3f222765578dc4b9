"""What a metric is here: a function of sums over examples.

Accuracy and mean Rouge are sums divided by counts; macro-F1, entity F1, BLEU, perplexity and calibration error are
functions of counts that are summed first. So every metric is a table of additive statistics, one row an example, and a
vectorised function from summed rows to the number. A bootstrap then weighs the rows, a permutation swaps those of two
models, and neither needs to know which metric it is.

Shapes: N examples, M additive statistics, D draws. An example that was answered several times (evaluation seeds) is
one row: the sum over its answers, which are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

Better = Literal["higher", "lower"]

Finish = Callable[[Float64[np.ndarray, "*D M"]], Float64[np.ndarray, "*D"]]
"""From sums to the number; NaN where it is undefined (a class that never occurs, no token)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of number. `unit` is how it is written: a fraction of 1 as %, nats, bits, points of 100, a count.

    `signature` says how it was computed where that varies: the library, its version, how words are cut.
    """

    name: str
    better: Better
    unit: Literal["fraction", "nats", "bits", "points", "count"]
    finish: Finish
    signature: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One metric of one model over N examples."""

    metric: Metric
    sums: Float64[np.ndarray, "N M"]

    @property
    def value(self) -> float:
        """The number over all examples; NaN where it is undefined."""
        return float(self.metric.finish(self.sums.sum(axis=0)))
