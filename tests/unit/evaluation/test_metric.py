"""A metric is a function of sums: of one row of sums, and of many at a time."""

from __future__ import annotations

import numpy as np

from evaluation.metric import Measured, Metric

ACCURACY = Metric("accuracy", better="higher", unit="fraction", finish=lambda sums: sums[..., 0] / sums[..., 1])


def test_the_value_is_that_of_the_sums() -> None:
    measured = Measured(ACCURACY, np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))
    assert measured.value == 2 / 3


def test_many_draws_are_finished_at_once() -> None:
    assert ACCURACY.finish(np.array([[1.0, 2.0], [2.0, 2.0]])).tolist() == [0.5, 1.0]
