"""Classes by the likelihood of their words, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cache import ScoreRequest, TeacherRecord
from cache.protocols import Failure
from evaluation.tasks.examples import Example
from orchestration.comparison.label_likelihood import class_logprobs, label_requests, label_score
from orchestration.comparison.task_questions import Question

EXAMPLE = Example(0, "pie", "pie is", "", ("good",), (), "", None, ("pie",), labelled=True)


def scored(*logprobs: float) -> TeacherRecord:
    ids = np.arange(1 + len(logprobs), dtype=np.int32)
    return TeacherRecord(b"", ids, 1, "given", "prefill", target_logprobs=np.array(logprobs, np.float32))


def test_every_label_stands_behind_the_question() -> None:
    question = Question(EXAMPLE, (5, 6), ((7,), (8, 9)))
    assert label_requests(question) == [ScoreRequest((5, 6, 7), 2), ScoreRequest((5, 6, 8, 9), 2)]
    assert label_requests(Question(EXAMPLE, refused="no")) == []


def test_a_score_is_the_sum_of_its_tokens_or_their_mean() -> None:
    assert label_score(scored(-1.0, -0.5), per_token=False) == -1.5
    assert label_score(scored(-1.0, -0.5), per_token=True) == -0.75
    text = TeacherRecord(b"", np.array([1, 2], np.int32), 1, "given", "prefill")
    assert all(math.isnan(label_score(said, per_token=True)) for said in (Failure("long"), "long", text))


def test_scores_become_log_probabilities() -> None:
    # Likelihoods 1/8 and 3/8 are probabilities 1/4 and 3/4.
    found = class_logprobs(np.log([[1 / 8, 3 / 8], [0.5, 0.5]]))
    np.testing.assert_allclose(np.exp(found), [[0.25, 0.75], [0.5, 0.5]])


def test_what_a_model_prefers_anyway_is_taken_out() -> None:
    # (1/8) / (1/10) = 5/4 and (3/8) / (9/10) = 5/12: three to one for the first, which was the less likely.
    found = class_logprobs(np.log([[1 / 8, 3 / 8]]), content_free=np.log([[0.1, 0.9]]))
    np.testing.assert_allclose(np.exp(found), [[0.75, 0.25]])
    # The mean of three probabilities, of scores that need not be normalised.
    free = np.log([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]) - [[3.0], [0.0], [1.0]]
    found = class_logprobs(np.log([[0.5, 0.5]]), content_free=free)
    np.testing.assert_allclose(np.exp(found), [[0.7, 0.3]])


def test_an_example_that_lacks_a_score_has_no_probabilities_and_others_keep_theirs() -> None:
    found = class_logprobs(np.array([[math.nan, -1.0], [-1.0, -1.0]]))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [-math.log(2)] * 2)
    assert class_logprobs(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("shift", [0.0, -500.0])
def test_likelihoods_that_underflow_are_no_trouble(shift: float) -> None:
    found = class_logprobs(np.array([[-700.0 + shift, -701.0 + shift]]))
    assert found[0, 0] - found[0, 1] == pytest.approx(1.0)
