"""Several students beside one baseline: the more that are tried, the likelier one looks different by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down p-values (Holm 1979, Scand. J. Statist. 6:65): below alpha, the family-wise error is alpha.

    A NaN is a test that could not be made: it stays NaN and does not count among the tests.
    """
    order = sorted((at for at, p in enumerate(p_values) if not math.isnan(p)), key=lambda at: p_values[at])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = largest
    return tuple(adjusted)
