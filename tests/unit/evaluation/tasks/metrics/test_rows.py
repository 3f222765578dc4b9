"""Answers under several seeds are one row of sums."""

from __future__ import annotations

import numpy as np
from task_builders import answered

from evaluation.tasks.metrics.rows import ratio, row_numbers, row_sums

EXAMPLES = [answered("a", "a", row=7), answered("a", "a", row=2), answered("a", "b", row=7, seed=1)]


def test_rows_are_in_the_order_of_their_numbers_and_summed_over_seeds() -> None:
    assert row_numbers(EXAMPLES) == (2, 7)
    assert row_sums(EXAMPLES, [(1.0, 1.0), (5.0, 1.0), (0.5, 1.0)], columns=2).tolist() == [[5.0, 1.0], [1.5, 2.0]]


def test_no_answers_are_no_rows() -> None:
    assert row_sums([], [], columns=3).shape == (0, 3)


def test_what_is_divided_by_nothing_is_undefined() -> None:
    assert ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()[0] == 0.5
    assert np.isnan(ratio(np.array([1.0]), np.array([0.0]))).all()
