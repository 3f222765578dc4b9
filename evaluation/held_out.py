"""Held-out metrics at the positions of the teacher's own answers.

Shapes: N scored tokens, K top-k. Everything is in nats and summed in float64. Divergences use the tail bucket: the K
ids and one bucket for the rest are two (K+1)-way distributions, so both are lower bounds of the full divergences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

LEAST_TAIL_LOGMASS = float(np.log(2.0**-24))
"""A tail below this is rounding: the floor that the cache keeps for the teacher is applied to the student too."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenBeliefs:
    """What teacher and student believe at N positions.

    `*_topk` are log-probabilities at the teacher's K ids, `*_tail` the log-mass outside them, `student_target` the
    student's log-probability of the token that came next, `top1_agrees` whether both hold the same id most likely.
    """

    teacher_topk: Float[np.ndarray, "N K"]
    teacher_tail: Float[np.ndarray, " N"]
    student_topk: Float[np.ndarray, "N K"]
    student_tail: Float[np.ndarray, " N"]
    student_target: Float[np.ndarray, " N"]
    top1_agrees: Int[np.ndarray, " N"]


@dataclass(frozen=True, slots=True)
class HeldOutMetrics:
    """Means over the held-out tokens; `forward_kl_stderr` is over sequences."""

    forward_kl: float
    forward_kl_stderr: float
    reverse_kl: float
    top1_agreement: float
    perplexity: float
    tokens: int


def held_out_metrics(sequences: Iterable[TokenBeliefs]) -> HeldOutMetrics:
    """Token means over all sequences.

    Raises:
        ValueError: there is no token to measure.
    """
    forward, reverse, agree, nll, counts = [], [], [], [], []
    for beliefs in sequences:
        p, q = (
            _buckets(beliefs.teacher_topk, beliefs.teacher_tail),
            _buckets(beliefs.student_topk, beliefs.student_tail),
        )
        forward.append(_kl(p, q).sum())
        reverse.append(_kl(q, p).sum())
        agree.append(int(beliefs.top1_agrees.sum()))
        nll.append(-beliefs.student_target.astype(np.float64).sum())
        counts.append(len(beliefs.student_target))
    tokens = sum(counts)
    if tokens == 0:
        raise ValueError("no held-out token to measure")
    return HeldOutMetrics(
        forward_kl=float(sum(forward) / tokens),
        forward_kl_stderr=ratio_stderr(np.array(forward), np.array(counts)),
        reverse_kl=float(sum(reverse) / tokens),
        top1_agreement=sum(agree) / tokens,
        perplexity=float(np.exp(sum(nll) / tokens)),
        tokens=tokens,
    )


def _buckets(topk: NDArray[np.floating], tail: NDArray[np.floating]) -> NDArray[np.float64]:
    """(K+1)-way log-probabilities; a tail of -inf (K = V) stays empty."""
    tail64 = tail.astype(np.float64)
    tail64 = np.where(np.isneginf(tail64), tail64, np.maximum(tail64, LEAST_TAIL_LOGMASS))
    return np.concatenate([topk.astype(np.float64), tail64[:, None]], axis=1)


def _kl(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p ‖ q) a row; 0 log 0 is 0."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    sums: NDArray[np.float64] = np.where(np.isneginf(log_p), 0.0, terms).sum(axis=1)
    return sums


def ratio_stderr(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Standard error of a ratio of sums over sequences (linearised): tokens of one answer are not independent."""
    n = len(sums)
    if n < 2:
        return float("nan")
    residual = sums - counts * (sums.sum() / counts.sum())
    return float(np.sqrt((residual**2).sum() * n / (n - 1)) / counts.sum())
