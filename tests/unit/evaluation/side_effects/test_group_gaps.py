"""Differences between groups are those that are counted by hand, and have intervals that hold nothing where it is so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.results import TaskExample
from evaluation.side_effects.group_gaps import (
    gap,
    gold_answers,
    label_recall,
    label_share,
    of_group,
    recalls_apart,
    shares_apart,
)
from evaluation.statistics import Resampling, estimate
from evaluation.tasks.measuring import measure

LABELS = ("a", "b", "c")


def answered(*said: tuple[str, str]) -> list[TaskExample]:
    """Rows by (gold, answer)."""
    return [TaskExample(row, 0, "", (gold,), "", (answer,), math.nan, 0) for row, (gold, answer) in enumerate(said)]


ROWS = answered(("a", "a"), ("a", "b"), ("b", "b"), ("a", "a"), ("b", "a"), ("b", "b"))
GROUP = np.array([True, True, True, False, False, False])


def test_every_difference_is_of_the_group_and_the_others() -> None:
    (accuracy,) = (one for one in measure("classification", ROWS, labels=LABELS) if one.metric.name == "accuracy")
    assert of_group(accuracy, GROUP).value == pytest.approx(2 / 3)
    assert gap(accuracy, GROUP).value == pytest.approx(0.0)
    assert gap(label_share(ROWS, "a"), GROUP).value == pytest.approx(1 / 3 - 2 / 3)
    assert gap(label_recall(ROWS, "a"), GROUP).value == pytest.approx(1 / 2 - 1)
    assert gap(label_recall(ROWS, "b"), GROUP).value == pytest.approx(1 - 1 / 2)
    assert math.isnan(gap(label_recall(ROWS, "c"), GROUP).value)


def test_differences_of_labels_do_not_cancel_when_they_are_put_together() -> None:
    assert shares_apart(ROWS, LABELS, GROUP).value == pytest.approx(1 / 3)
    assert recalls_apart(ROWS, LABELS, GROUP).value == pytest.approx(1 / 2)
    assert shares_apart(gold_answers(ROWS), LABELS, GROUP).value == pytest.approx(1 / 3)
    assert recalls_apart(gold_answers(ROWS), LABELS, GROUP).value == 0.0


def test_answers_under_several_seeds_are_one_row_and_none_is_no_label() -> None:
    twice = [*ROWS, *(TaskExample(row, 1, "", ("a",), "", None, math.nan, 0) for row in range(len(ROWS)))]
    shares = label_share(twice, "a")
    assert len(shares.sums) == len(ROWS) and shares.value == pytest.approx(3 / 12)


@pytest.mark.parametrize(("apart", "seen"), [(0.0, False), (0.3, True)])
def test_an_interval_holds_nothing_unless_there_is_something(apart: float, seen: bool) -> None:
    """Two groups of 150 rows: a difference of 12 pp is seen four times of five, one of 30 pp always."""
    random = np.random.default_rng(0)
    group, held = np.arange(300) % 2 == 0, 0
    for _ in range(60):
        right = random.random(300) < np.where(group, 0.85 - apart, 0.85)
        rows = answered(*(("a", "a" if hit else "b") for hit in right))
        accuracy = measure("classification", rows, labels=LABELS)[0]
        interval = estimate(gap(accuracy, group), Resampling(draws=400)).interval
        held += interval.low <= 0.0 <= interval.high
    assert held <= 2 if seen else held >= 53
