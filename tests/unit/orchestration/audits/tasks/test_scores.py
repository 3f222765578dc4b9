"""Scores are log-probabilities of decisions, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from orchestration.audits.tasks.scores import belief_score, certainty, label_score, log_probabilities

WORDS = np.log(np.array([[0.9, 0.1], [0.3, 0.7]], dtype=np.float32))


def test_a_label_of_each_unit() -> None:
    assert label_score(WORDS, (0, 0), kind="tagging") == pytest.approx((np.log(0.9) + np.log(0.3)) / 2)
    assert certainty(WORDS, kind="tagging") == pytest.approx((np.log(0.9) + np.log(0.7)) / 2)
    assert label_score(WORDS[:1] + 5.0, (1,), kind="classification") == pytest.approx(np.log(0.1), rel=1e-5)


def test_the_ends_of_a_span_are_chosen_among_its_units() -> None:
    ends = np.log(np.array([[0.8, 0.5], [0.2, 0.5]], dtype=np.float32))
    np.testing.assert_allclose(np.exp(log_probabilities(ends, kind="extractive_qa")).sum(axis=0), 1.0)
    assert label_score(ends, (0, 1), kind="extractive_qa") == pytest.approx((np.log(0.8) + np.log(0.5)) / 2)
    assert certainty(ends, kind="extractive_qa") == pytest.approx((np.log(0.8) + np.log(0.5)) / 2)


def test_what_another_one_believes_is_a_cross_entropy() -> None:
    believed = np.log(np.array([[0.5, 0.5], [1.0, 1e-9]], dtype=np.float32))
    assert belief_score(WORDS, believed, kind="tagging") == pytest.approx(
        (0.5 * np.log(0.9) + 0.5 * np.log(0.1) + np.log(0.3)) / 2, rel=1e-4
    )
    # Nobody finds it likelier than whoever believes it.
    assert belief_score(WORDS, believed, kind="tagging") < belief_score(believed, believed, kind="tagging")
