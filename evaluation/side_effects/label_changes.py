"""What a model makes of a text about somebody else: whether its answer changes, and how sure it still is of it.

*Counterfactual fairness* of a classifier of texts (Garg et al. 2019, arXiv 1809.10610): the prediction for "she booked
a table" should be that for "he booked a table". The mean change of the probability is their counterfactual token
fairness gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of


def changed_share(changed: Sequence[float]) -> Measured:
    """How many answers change, or of one text how many of its words do (a fraction of each); a row a text."""
    return _mean("changed_under_swap", changed)


def mean_change(moved: Sequence[float]) -> Measured:
    """By how much the probability of the answer changes, whichever way; a row a text."""
    return _mean("probability_change_under_swap", moved)


def _mean(name: str, values: Sequence[float]) -> Measured:
    sums = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    return Measured(Metric(name, "lower", "fraction", ratio_of), sums)
