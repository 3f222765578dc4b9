"""Confidences against outcomes, on answers whose calibration can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import task_facts, task_model

from evaluation.analysis.calibration import calibration, reliability_of_answers
from evaluation.results import FinalScores

FACTS = task_facts("intents")


def test_calibration_by_hand() -> None:
    # 80 answers at 0.9 that are all right, 20 at 0.4 that are all wrong.
    scores = task_model("bag", right=80).tasks[0]
    measured = calibration(scores, FACTS)
    assert measured is not None
    ece, brier = measured
    assert ece.value == pytest.approx(0.8 * 0.1 + 0.2 * 0.4)
    assert brier.value == pytest.approx(0.8 * 0.01 + 0.2 * 0.16)
    assert len(ece.sums) == len(brier.sums) == 100
    bins = {each.low: each for each in reliability_of_answers(scores, FACTS) if each.count}
    assert [(each.count, round(each.confidence, 6), each.accuracy) for each in bins.values()] == [
        (20, 0.4, 0.0),
        (80, 0.9, 1.0),
    ]
    assert all(each.low <= each.confidence <= each.high for each in bins.values())


def test_seeds_are_answers_of_one_row() -> None:
    one, three = (calibration(task_model("bag", right=80, seeds=seeds).tasks[0], FACTS) for seeds in (1, 3))
    assert one is not None and three is not None
    assert len(three[0].sums) == 100 and three[0].value == pytest.approx(one[0].value)
    np.testing.assert_allclose(three[1].sums, 3 * one[1].sums)


def test_without_confidences_there_is_nothing() -> None:
    scores = task_model("bag", right=80).tasks[0]
    unsure = FinalScores("intents", "text", tuple(replace(each, confidence=float("nan")) for each in scores.examples))
    assert calibration(unsure, FACTS) is None and reliability_of_answers(unsure, FACTS) == ()


def test_a_sure_answer_falls_into_the_last_bin() -> None:
    scores = task_model("bag", right=80).tasks[0]
    sure = FinalScores("intents", "head", tuple(replace(each, confidence=1.0) for each in scores.examples))
    bins = reliability_of_answers(sure, FACTS)
    assert [each.count for each in bins] == [0] * 14 + [100] and bins[-1].accuracy == 0.8
