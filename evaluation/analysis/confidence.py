"""Is the student sure where its teacher is sure?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.analysis.judging import BothAnswers

FEWEST = 3
"""Two points always lie on a line."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of the confidences in `n` answers: linear (Pearson) and by rank (Spearman); NaN where there is none."""

    pearson: float
    spearman: float
    n: int


def confidence_correlation(answers: Sequence[BothAnswers]) -> Correlation:
    """Over the answers for which both confidences are known."""
    pairs = [(both.teacher.example.confidence, both.student.example.confidence) for both in answers]
    known = np.array([pair for pair in pairs if not any(map(math.isnan, pair))]).reshape(-1, 2)
    if len(known) < FEWEST or bool(np.any(np.ptp(known, axis=0) == 0)):
        return Correlation(math.nan, math.nan, len(known))
    # Not before it is needed: it takes two seconds to load, and whoever shows results correlates none.
    from scipy.stats import pearsonr, spearmanr

    linear, ranked = pearsonr(known[:, 0], known[:, 1]), spearmanr(known[:, 0], known[:, 1])
    return Correlation(float(linear.statistic), float(ranked.statistic), len(known))
