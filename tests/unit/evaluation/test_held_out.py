"""Held-out metrics against sums over whole distributions, written out in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation import held_out_metrics
from evaluation.held_out import LEAST_TAIL_LOGMASS, TokenBeliefs

VOCAB = 11


def distributions(seed: int, *, rows: int, spread: float = 2.0) -> NDArray[np.float64]:
    """Log-probabilities [rows, VOCAB] in nats."""
    logits = np.random.default_rng(seed).normal(scale=spread, size=(rows, VOCAB))
    logprobs: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logprobs


def beliefs(teacher: NDArray[np.float64], student: NDArray[np.float64], *, k: int, target: int = 0) -> TokenBeliefs:
    """What is kept of two full distributions: the teacher's k best ids and the mass of the others."""
    order = np.argsort(-teacher, axis=1)
    best, rest = order[:, :k], order[:, k:]

    def tail(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
        if k == VOCAB:
            return np.full(len(logprobs), -np.inf)
        mass: NDArray[np.float64] = np.exp(np.take_along_axis(logprobs, rest, axis=1)).sum(axis=1)
        return np.log(mass)

    return TokenBeliefs(
        teacher_topk=np.take_along_axis(teacher, best, axis=1),
        teacher_tail=tail(teacher),
        student_topk=np.take_along_axis(student, best, axis=1),
        student_tail=tail(student),
        student_target=student[:, target],
        top1_agrees=(teacher.argmax(axis=1) == student.argmax(axis=1)).astype(np.int64),
    )


def full_kl(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p ‖ q) of each row over the whole vocabulary."""
    return np.array(
        [sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True)) for p, q in zip(log_p, log_q, strict=True)]
    )


def pairs(lengths: Sequence[int]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return [(distributions(i, rows=n), distributions(100 + i, rows=n)) for i, n in enumerate(lengths)]


def test_divergences_over_the_whole_vocabulary_are_the_plain_sums() -> None:
    sequences = pairs([5, 1, 9])
    metrics = held_out_metrics(beliefs(p, q, k=VOCAB) for p, q in sequences)
    forward = np.concatenate([full_kl(p, q) for p, q in sequences])
    reverse = np.concatenate([full_kl(q, p) for p, q in sequences])
    assert metrics.forward_kl == pytest.approx(forward.mean(), rel=1e-12)
    assert metrics.reverse_kl == pytest.approx(reverse.mean(), rel=1e-12)
    assert metrics.tokens == 15


def test_the_two_directions_are_not_exchanged() -> None:
    # The student puts no mass to speak of where the teacher has half of its own: only KL(teacher ‖ student) is large.
    p = np.log(np.array([[0.5, 0.5]]))
    q = np.log(np.array([[1 - 1e-6, 1e-6]]))
    metrics = held_out_metrics([TokenBeliefs(p, np.array([-np.inf]), q, np.array([-np.inf]), q[:, 0], np.array([1]))])
    assert metrics.forward_kl == pytest.approx(0.5 * np.log(0.5 / (1 - 1e-6)) + 0.5 * np.log(0.5 / 1e-6))
    assert metrics.reverse_kl == pytest.approx((1 - 1e-6) * np.log((1 - 1e-6) / 0.5) + 1e-6 * np.log(1e-6 / 0.5))
    assert metrics.forward_kl > 8 * metrics.reverse_kl


@given(seed=st.integers(0, 10_000), k=st.integers(1, VOCAB - 1), spread=st.floats(0.1, 5.0))
def test_the_bucket_gives_a_lower_bound(seed: int, k: int, spread: float) -> None:
    p, q = distributions(seed, rows=4, spread=spread), distributions(seed + 1, rows=4, spread=spread)
    metrics = held_out_metrics([beliefs(p, q, k=k)])
    assert -1e-12 <= metrics.forward_kl <= full_kl(p, q).mean() + 1e-9
    assert -1e-12 <= metrics.reverse_kl <= full_kl(q, p).mean() + 1e-9


@pytest.mark.parametrize("k", [1, 4, VOCAB])
def test_equal_models_differ_by_nothing(k: int) -> None:
    p = distributions(3, rows=6)
    metrics = held_out_metrics([beliefs(p, p, k=k)])
    assert metrics.forward_kl == 0.0
    assert metrics.reverse_kl == 0.0
    assert metrics.top1_agreement == 1.0


def test_an_id_that_neither_side_holds_adds_nothing() -> None:
    # Ids that are only on one of two lists are moved into both buckets, which leaves -inf at their place.
    p = np.array([[np.log(0.6), -np.inf]])
    q = np.array([[np.log(0.3), -np.inf]])
    rest_p, rest_q = np.log(np.array([0.4])), np.log(np.array([0.7]))
    metrics = held_out_metrics([TokenBeliefs(p, rest_p, q, rest_q, q[:, 0], np.array([1]))])
    assert metrics.forward_kl == pytest.approx(0.6 * np.log(0.6 / 0.3) + 0.4 * np.log(0.4 / 0.7))
    assert metrics.reverse_kl == pytest.approx(0.3 * np.log(0.3 / 0.6) + 0.7 * np.log(0.7 / 0.4))


def test_a_tail_below_rounding_counts_as_the_floor_on_both_sides() -> None:
    head = np.array([[0.0]])
    tails = np.array([LEAST_TAIL_LOGMASS - 30.0])
    metrics = held_out_metrics(
        [TokenBeliefs(head, np.array([LEAST_TAIL_LOGMASS]), head, tails, head[:, 0], np.array([1]))],
    )
    assert metrics.forward_kl == 0.0
    assert metrics.reverse_kl == 0.0


def test_float32_beliefs_are_summed_in_float64() -> None:
    rows = 200_000
    p = np.log(np.array([[0.5, 0.5]])).repeat(rows, axis=0)
    q = np.log(np.array([[0.5001, 0.4999]])).repeat(rows, axis=0)
    none = np.full(rows, -np.inf, dtype=np.float32)
    p32, q32 = p.astype(np.float32), q.astype(np.float32)
    metrics = held_out_metrics([TokenBeliefs(p32, none, q32, none, q32[:, 0], np.ones(rows, dtype=np.int64))])
    one = full_kl(p32[:1].astype(np.float64), q32[:1].astype(np.float64))[0]
    assert metrics.forward_kl == pytest.approx(one, rel=1e-6)


def test_agreement_and_perplexity_are_token_means() -> None:
    sequences = pairs([2, 8])
    metrics = held_out_metrics(beliefs(p, q, k=3, target=2) for p, q in sequences)
    agreed = np.concatenate([p.argmax(axis=1) == q.argmax(axis=1) for p, q in sequences])
    targets = np.concatenate([q[:, 2] for _, q in sequences])
    assert metrics.top1_agreement == pytest.approx(agreed.mean())
    assert metrics.perplexity == pytest.approx(np.exp(-targets.mean()))


def test_a_longer_answer_weighs_more() -> None:
    short, long = pairs([1, 30])
    metrics = held_out_metrics(beliefs(p, q, k=VOCAB) for p, q in (short, long))
    means = [full_kl(p, q).mean() for p, q in (short, long)]
    assert metrics.forward_kl == pytest.approx((means[0] + 30 * means[1]) / 31)


def test_the_standard_error_is_that_of_resampled_sequences() -> None:
    lengths = np.random.default_rng(7).integers(1, 20, size=150).tolist()
    sequences = pairs(lengths)
    metrics = held_out_metrics(beliefs(p, q, k=VOCAB) for p, q in sequences)
    sums = np.array([full_kl(p, q).sum() for p, q in sequences])
    drawn = np.random.default_rng(8).integers(0, len(sums), size=(4000, len(sums)))
    means = sums[drawn].sum(axis=1) / np.array(lengths)[drawn].sum(axis=1)
    assert metrics.forward_kl_stderr == pytest.approx(means.std(), rel=0.08)


def test_the_standard_error_counts_sequences_and_not_their_tokens() -> None:
    # Every answer says the same thing 50 times: as uncertain as if it had said it once.
    once = pairs([1] * 12)
    often = [(p.repeat(50, axis=0), q.repeat(50, axis=0)) for p, q in once]
    few = held_out_metrics(beliefs(p, q, k=VOCAB) for p, q in once)
    many = held_out_metrics(beliefs(p, q, k=VOCAB) for p, q in often)
    assert many.forward_kl_stderr == pytest.approx(few.forward_kl_stderr)
    sums = np.array([full_kl(p, q)[0] for p, q in once])
    assert few.forward_kl_stderr == pytest.approx(sums.std(ddof=1) / np.sqrt(12))


def test_one_sequence_has_no_standard_error() -> None:
    p, q = pairs([4])[0]
    assert np.isnan(held_out_metrics([beliefs(p, q, k=3)]).forward_kl_stderr)


@pytest.mark.parametrize("sequences", [[], [beliefs(distributions(0, rows=0), distributions(1, rows=0), k=3)]])
def test_no_token_is_an_error(sequences: list[TokenBeliefs]) -> None:
    with pytest.raises(ValueError, match="no held-out token"):
        held_out_metrics(sequences)
