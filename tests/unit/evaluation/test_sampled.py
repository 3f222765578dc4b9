"""The reverse KL estimated on sampled answers, against sums written out and against the true divergence."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from evaluation.sampled import sampled_reverse_kl

Pair = tuple[np.ndarray, np.ndarray]


def answers(lengths: tuple[int, ...]) -> list[Pair]:
    """Log-probabilities of student and teacher, in single precision as engines give them."""
    rng = np.random.default_rng(3)
    return [tuple(-rng.exponential(2.0, size=(2, length)).astype(np.float32)) for length in lengths]


def test_it_is_the_mean_over_answers_of_summed_log_ratios() -> None:
    pairs = answers((5, 1, 9, 0))
    found = sampled_reverse_kl(pairs)
    sums = [math.fsum(float(q) - float(p) for q, p in zip(*pair, strict=True)) for pair in pairs]
    assert found.a_sequence == pytest.approx(statistics.fmean(sums), rel=1e-12)
    assert found.a_sequence_stderr == pytest.approx(statistics.stdev(sums) / 2, rel=1e-12)
    assert found.a_token == pytest.approx(math.fsum(sums) / 15, rel=1e-12)
    assert found.tokens == 15 / 4


def test_the_error_a_token_is_that_of_a_ratio() -> None:
    """Against the spread over many resampled sets of answers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, size=400)
    pairs = [(rng.normal(0.3, 1.0, size=n), np.zeros(n)) for n in lengths]
    sums = np.array([pair[0].sum() for pair in pairs])
    drawn = rng.integers(0, len(pairs), size=(4000, len(pairs)))
    spread = (sums[drawn].sum(axis=1) / lengths[drawn].sum(axis=1)).std()
    assert sampled_reverse_kl(pairs).a_token_stderr == pytest.approx(spread, rel=0.05)


def test_it_estimates_the_divergence_of_the_student_from_the_teacher() -> None:
    rng = np.random.default_rng(1)
    log_q, log_p = (np.log(rng.dirichlet(np.ones(6))) for _ in range(2))
    true = float((np.exp(log_q) * (log_q - log_p)).sum())
    drawn = rng.choice(6, p=np.exp(log_q), size=(2000, 3))
    found = sampled_reverse_kl((log_q[ids], log_p[ids]) for ids in drawn)
    assert abs(found.a_token - true) < 4 * found.a_token_stderr < 0.2
    assert found.a_sequence == pytest.approx(3 * found.a_token)


def test_one_answer_has_no_error_and_no_token_no_estimate() -> None:
    found = sampled_reverse_kl(answers((4,)))
    assert math.isnan(found.a_sequence_stderr) and math.isnan(found.a_token_stderr)
    for empty in ([], answers((0, 0))):
        with pytest.raises(ValueError, match="no sampled token"):
            sampled_reverse_kl(empty)
