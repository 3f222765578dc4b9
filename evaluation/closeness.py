"""How close a model is to its teacher, at the positions of the teacher's own answers.

Everything is a sum over the tokens of an answer, in float64, so that an answer is one row of a table and each metric a
function of summed rows (`evaluation.metric`). Shapes: S scored tokens of one answer, K ids that the cache keeps of the
teacher, k best ids of the model itself.

Divergences, in nats, use the tail bucket: the K ids and one bucket for the rest are two (K+1)-way distributions, so
both are lower bounds of the full divergences. Calibration is that of the most likely token: its probability is the
model's confidence, and it is right where the teacher wrote that token. The expected calibration error is Naeini et
al.'s (2015), over bins of equal width; the Brier score (1950) is the mean squared distance of confidence and outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import Closeness

LEAST_TAIL_LOGMASS = float(np.log(2.0**-24))
"""A tail below this is rounding: the floor that the cache keeps for the teacher is applied to the student too."""

TOP_K = 5
"""Of how many best ids the agreement is counted; fewer where fewer are kept."""

BINS = 15
"""Bins of the reliability diagram, of equal width from 0 to 1."""

SUMS = ("tokens", "forward_kl", "reverse_kl", "top1", "topk", "nll", "brier")
"""Sums over the tokens of an answer."""

BIN_SUMS = ("count", "confidence", "hits")
"""Sums over the tokens of an answer whose confidence falls into one bin."""

COLUMNS = (*SUMS, *(f"bin{number:02}_{name}" for number in range(BINS) for name in BIN_SUMS))

WORDING = ("answered", "rouge_l", "written", "referenced")
"""Of an answer that the model wrote itself: 1, its Rouge-L, its tokens and the teacher's (`evaluation.text`)."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenBeliefs:
    """What teacher and student believe at S positions of one answer.

    `*_topk` are log-probabilities at the teacher's K ids, `*_tail` the log-mass outside them, `student_target` the
    student's log-probability of `target_ids`, the tokens that came next. `teacher_ids` and `own_ids` are the best ids
    of each, the best first, and `own_best` the student's log-probability of its best.
    """

    teacher_topk: Float[np.ndarray, "S K"]
    teacher_tail: Float[np.ndarray, " S"]
    student_topk: Float[np.ndarray, "S K"]
    student_tail: Float[np.ndarray, " S"]
    student_target: Float[np.ndarray, " S"]
    target_ids: Int[np.ndarray, " S"]
    teacher_ids: Int[np.ndarray, "S K"]
    own_ids: Int[np.ndarray, "S k"]
    own_best: Float[np.ndarray, " S"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Tokens whose confidence lies between `low` and `high`: how many, mean confidence, and the fraction that is right.

    The last two are NaN where there is no token.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def closeness_of(answers: Iterable[TokenBeliefs]) -> Closeness:
    """One row an answer, in their order."""
    return Closeness(COLUMNS, tuple(tuple(_sums(answer)) for answer in answers))


def joined(one: Closeness | None, other: Closeness) -> Closeness:
    """The columns of both, which are about the same answers in the same order."""
    if one is None:
        return other
    if len(one.sums) != len(other.sums):
        raise ValueError(f"{len(one.sums)} answers and {len(other.sums)} are not the same ones")
    return Closeness(one.columns + other.columns, tuple(a + b for a, b in zip(one.sums, other.sums, strict=True)))


def measured(closeness: Closeness) -> dict[str, Measured]:
    """Every metric whose sums are there, by name."""
    table = _table(closeness)
    at = {name: column for column, name in enumerate(closeness.columns)}
    return {
        metric.name: Measured(metric, table[:, [at[name] for name in columns]])
        for columns, metric in METRICS
        if all(name in at for name in columns)
    }


def reliability(closeness: Closeness) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram of a model over all answers; empty where it was not measured."""
    if not set(COLUMNS) <= set(closeness.columns):
        return ()
    total = dict(zip(closeness.columns, _table(closeness).sum(axis=0).tolist(), strict=True))
    bins = []
    for number in range(BINS):
        count, confidence, hits = (total[f"bin{number:02}_{name}"] for name in BIN_SUMS)
        means = (confidence / count, hits / count) if count else (float("nan"), float("nan"))
        bins.append(ReliabilityBin(number / BINS, (number + 1) / BINS, int(count), *means))
    return tuple(bins)


def length_ratio(closeness: Closeness) -> float:
    """Tokens that a model wrote for each token of the teacher's answers; NaN where it was not measured."""
    if not set(WORDING) <= set(closeness.columns):
        return float("nan")
    written, referenced = (closeness.columns.index(name) for name in WORDING[2:])
    return float(ratio_of(_table(closeness).sum(axis=0)[[written, referenced]]))


def calibration_error(sums: Float64[np.ndarray, "*D B"]) -> Float64[np.ndarray, "*D"]:
    """The distance of confidence and accuracy, a mean over tokens; of sums over the bins, `BIN_SUMS` of each."""
    counts, confidence, hits = (sums[..., at :: len(BIN_SUMS)] for at in range(len(BIN_SUMS)))
    return ratio_of(np.stack([np.abs(confidence - hits).sum(axis=-1), counts.sum(axis=-1)], axis=-1))


def token_kl(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p ‖ q) in nats a row [S]; 0 log 0 is 0."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    sums: NDArray[np.float64] = np.where(np.isneginf(log_p), 0.0, terms).sum(axis=1)
    return sums


def buckets(topk: NDArray[np.floating], tail: NDArray[np.floating]) -> NDArray[np.float64]:
    """(K+1)-way log-probabilities [S, K+1]; a tail of -inf (K = V) stays empty."""
    tail64 = tail.astype(np.float64)
    tail64 = np.where(np.isneginf(tail64), tail64, np.maximum(tail64, LEAST_TAIL_LOGMASS))
    return np.concatenate([topk.astype(np.float64), tail64[:, None]], axis=1)


def _table(closeness: Closeness) -> NDArray[np.float64]:
    """The sums [answers, columns]."""
    return np.array(closeness.sums, dtype=np.float64).reshape(-1, len(closeness.columns))


def _sums(beliefs: TokenBeliefs) -> list[float]:
    p = buckets(beliefs.teacher_topk, beliefs.teacher_tail)
    q = buckets(beliefs.student_topk, beliefs.student_tail)
    confidence = np.minimum(np.exp(beliefs.own_best.astype(np.float64)), 1.0)
    hit = (beliefs.own_ids[:, 0] == beliefs.target_ids).astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    by_bin = [np.bincount(bins, weights=each, minlength=BINS) for each in (np.ones_like(hit), confidence, hit)]
    return [
        float(len(hit)),
        float(token_kl(p, q).sum()),
        float(token_kl(q, p).sum()),
        float((beliefs.teacher_ids[:, 0] == beliefs.own_ids[:, 0]).sum()),
        _shared(beliefs.teacher_ids, beliefs.own_ids),
        float(-beliefs.student_target.astype(np.float64).sum()),
        float(((confidence - hit) ** 2).sum()),
        *np.stack(by_bin, axis=1).astype(np.float64).ravel().tolist(),
    ]


def _shared(teacher: NDArray[np.integer], own: NDArray[np.integer]) -> float:
    """The part of the best ids that both hold, summed over positions."""
    k = min(TOP_K, teacher.shape[1], own.shape[1])
    both = teacher[:, :k, None] == own[:, None, :k]
    return float(both.any(axis=2).sum() / k)


def _perplexity(sums: Float64[np.ndarray, "*D 2"]) -> Float64[np.ndarray, "*D"]:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(ratio_of(sums)))


def _points(sums: Float64[np.ndarray, "*D 2"]) -> Float64[np.ndarray, "*D"]:
    return np.asarray(100.0 * ratio_of(sums))


METRICS: tuple[tuple[tuple[str, ...], Metric], ...] = (
    (("forward_kl", "tokens"), Metric("forward_kl", "lower", "nats", ratio_of)),
    (("reverse_kl", "tokens"), Metric("reverse_kl", "lower", "nats", ratio_of)),
    (("top1", "tokens"), Metric("top1_agreement", "higher", "fraction", ratio_of)),
    (("topk", "tokens"), Metric("topk_agreement", "higher", "fraction", ratio_of)),
    (("nll", "tokens"), Metric("perplexity", "lower", "points", _perplexity)),
    (("brier", "tokens"), Metric("brier", "lower", "fraction", ratio_of)),
    (COLUMNS[len(SUMS) :], Metric("ece", "lower", "fraction", calibration_error)),
    (("rouge_l", "answered"), Metric("rouge_l", "higher", "points", _points)),
)
"""The metrics, each with the columns whose sums it is a function of."""
