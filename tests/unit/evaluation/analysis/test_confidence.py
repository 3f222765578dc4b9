"""Correlations against numpy and ranks by hand, and the cases that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis_builders import answer, both

from evaluation.analysis.confidence import Correlation, confidence_correlation

TEACHER = [0.9, 0.8, 0.95, 0.5, 0.6]
STUDENT = [0.7, 0.75, 0.9, 0.4, 0.3]


def correlation(teacher: list[float], student: list[float]) -> Correlation:
    return confidence_correlation(
        both(
            [answer(row, "a", "a", value) for row, value in enumerate(teacher)],
            [answer(row, "a", "b", value) for row, value in enumerate(student)],
        )
    )


def test_linear_and_by_rank() -> None:
    found = correlation(TEACHER, STUDENT)
    assert found.pearson == pytest.approx(np.corrcoef(TEACHER, STUDENT)[0, 1])
    # Ranks 4 3 5 1 2 and 3 4 5 2 1: 1 - 6 * (1 + 1 + 0 + 1 + 1) / (5 * 24)
    assert found.spearman == pytest.approx(0.8)
    assert found.n == 5


def test_what_is_not_known_is_left_out_and_counted() -> None:
    found = correlation([*TEACHER, math.nan, 0.3], [*STUDENT, 0.4, math.nan])
    assert (found.n, found.spearman) == (5, pytest.approx(0.8))


@pytest.mark.parametrize(("teacher", "n"), [([0.5, 0.6], 2), ([0.5] * 5, 5), ([math.nan] * 5, 0)])
def test_where_there_is_no_correlation(teacher: list[float], n: int) -> None:
    found = correlation(teacher, STUDENT[: len(teacher)])
    assert math.isnan(found.pearson) and math.isnan(found.spearman) and found.n == n
