"""Whether a model knows how sure it may be: its confidences in whole answers against how often these are right.

The confidence is the probability of all that was predicted (`TaskExample.confidence`), and an answer is right where
nothing is wrong with it. Calibration error and Brier score are those of `evaluation.closeness`, over answers in place
of tokens.
"""

from __future__ import annotations

import math

import numpy as np

from evaluation.analysis.judging import judged
from evaluation.closeness import BIN_SUMS, BINS, ReliabilityBin, calibration_error
from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import FinalScores, TaskFacts

ECE = Metric("ece", "lower", "fraction", calibration_error)
BRIER = Metric("brier", "lower", "fraction", ratio_of)


def calibration(scores: FinalScores, facts: TaskFacts) -> tuple[Measured, Measured] | None:
    """Calibration error and Brier score, a row of sums for each row of the task; None where no confidence is known."""
    rows: dict[int, np.ndarray] = {}
    for row, confidence, right in _beliefs(scores, facts):
        sums = rows.setdefault(row, np.zeros(len(BIN_SUMS) * BINS + 2))
        place = len(BIN_SUMS) * min(int(confidence * BINS), BINS - 1)
        sums[place : place + len(BIN_SUMS)] += (1.0, confidence, right)
        sums[-2:] += ((confidence - right) ** 2, 1.0)
    if not rows:
        return None
    table = np.stack([rows[row] for row in sorted(rows)])
    return Measured(ECE, table[:, :-2]), Measured(BRIER, table[:, -2:])


def reliability_of_answers(scores: FinalScores, facts: TaskFacts) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram over all answers; empty where no confidence is known."""
    measured = calibration(scores, facts)
    if measured is None:
        return ()
    total = measured[0].sums.sum(axis=0).reshape(BINS, len(BIN_SUMS))
    bins = []
    for number, (count, confidence, hits) in enumerate(total.tolist()):
        means = (confidence / count, hits / count) if count else (math.nan, math.nan)
        bins.append(ReliabilityBin(number / BINS, (number + 1) / BINS, int(count), *means))
    return tuple(bins)


def _beliefs(scores: FinalScores, facts: TaskFacts) -> list[tuple[int, float, float]]:
    """Row, confidence, and 1 for a right answer or 0, of the answers whose confidence is known."""
    return [
        (one.example.row, one.example.confidence, float(one.score == 1.0))
        for one in judged(scores, facts)
        if math.isfinite(one.example.confidence)
    ]
