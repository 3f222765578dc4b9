"""The reverse KL of a student from its teacher, estimated on what the student itself wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from evaluation.ratios import ratio_stderr


@dataclass(frozen=True, slots=True)
class SampledReverseKL:
    """KL(student ‖ teacher) over whole answers, in nats; the standard errors are those over answers.

    `a_token` is the sum over an answer divided by the mean number of tokens of an answer.
    """

    a_sequence: float
    a_sequence_stderr: float
    a_token: float
    a_token_stderr: float
    tokens: float


def sampled_reverse_kl(
    # Every answer has a length of its own, so no axis has a name.
    answers: Iterable[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]],
) -> SampledReverseKL:
    """From the log-probabilities that student and teacher give each token of answers that the student sampled.

    The mean over answers of sum_t log q(y_t) - log p(y_t) has no bias; that of a single answer may be negative.

    Raises:
        ValueError: there is no token to measure.
    """
    pairs = [(student.astype(np.float64), teacher.astype(np.float64)) for student, teacher in answers]
    sums = np.array([(student - teacher).sum() for student, teacher in pairs])
    counts = np.array([len(student) for student, _ in pairs])
    if counts.sum() == 0:
        raise ValueError("no sampled token to measure")
    deviation = float(sums.std(ddof=1) / np.sqrt(len(sums))) if len(sums) > 1 else float("nan")
    return SampledReverseKL(
        a_sequence=float(sums.mean()),
        a_sequence_stderr=deviation,
        a_token=float(sums.sum() / counts.sum()),
        a_token_stderr=ratio_stderr(sums, counts),
        tokens=float(counts.mean()),
    )
