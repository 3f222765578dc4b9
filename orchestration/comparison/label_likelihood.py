"""Classes by the likelihood of the words that stand for them, after a question.

Shapes: E examples, C classes. A score is the log-probability (in nats) of all tokens of a label after the question, or
their mean a token; NaN where the model could not say it.

A model prefers some words whatever it is asked. Zhao et al., "Calibrate Before Use" (arXiv 2102.09690), divide the
probability of each label by the mean of its probabilities after questions without content: scores are then differences.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from cache import ScoreRequest, TeacherRecord
from orchestration.comparison.task_questions import Question

LABEL_LOGPROBS = 1
"""Log-probabilities a position when labels are scored; that of the label's own token comes with any number of them."""


def label_requests(question: Question) -> list[ScoreRequest]:
    """The question with each label behind it, in the order of the labels."""
    prompt = question.prompt_ids
    return [ScoreRequest((*prompt, *label), len(prompt)) for label in question.label_ids]


def label_score(answer: object, *, per_token: bool) -> float:
    """The score of a label by its scored row; NaN for whatever is not one."""
    if not isinstance(answer, TeacherRecord) or answer.target_logprobs is None:
        return math.nan
    logprobs = answer.target_logprobs.astype(np.float64)
    return float(logprobs.mean() if per_token else logprobs.sum())


def class_logprobs(
    scores: Float64[np.ndarray, "E C"], *, content_free: Float64[np.ndarray, "Q C"] | None = None
) -> Float64[np.ndarray, "E C"]:
    """Log-probabilities of the classes, which sum to one; of an example that lacks a score all are NaN.

    `content_free` are the scores after Q questions without content: the log of the mean of the probabilities that they
    give each class is subtracted first.
    """
    found = scores
    if content_free is not None:
        bias = np.logaddexp.reduce(class_logprobs(content_free), axis=0) - math.log(len(content_free))
        found = scores - bias
    with np.errstate(invalid="ignore"):
        normalised: Float64[np.ndarray, "E C"] = found - np.logaddexp.reduce(found, axis=1, keepdims=True)
    return normalised
