"""Can the rows that a model was trained on be told from rows that it was not trained on, by what it believes of them?

Membership inference (Shokri et al. 2017, arXiv 1610.05820) with scores that need nothing but log-probabilities. All are
higher for a row that is taken for a training row:

- `loss_score`: the mean log-probability of its tokens (Yeom et al. 2018, arXiv 1709.01604);
- `reference_score`: the same minus that of another model, which takes out how hard a text is for everybody (Carlini et
  al. 2022, arXiv 2112.03570);
- `zlib_score`: log-probability by bit that zlib needs for the text (Carlini et al. 2021, arXiv 2012.07805);
- `min_k_score`: the mean over the least likely fifth of its tokens, Min-K% (Shi et al. 2024, arXiv 2310.16789).

How well a score tells them apart is the area under its ROC curve (0.5 is a guess, 1 tells all), and how many training
rows are found where at most one of a hundred others is taken for one.

Shapes: T tokens of a row, M training rows (members), N others, G distinct scores. Log-probabilities are in nats.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluation.metric import Measured, Metric
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.paired import Instrument, found_beside

LEAST_LIKELY = 0.2
"""The part of a row's tokens that Min-K% looks at."""

FALSE_POSITIVES = 0.01
"""The rate of others taken for training rows at which found training rows are counted."""

CHOICE = 8
"""Training rows for each held-out row, from which the one of the nearest length is chosen."""

FEWEST_OTHERS = round(1 / FALSE_POSITIVES)
"""With fewer of them one alone is more than that rate."""

NamedScores = Mapping[str, list[float]]
"""A score of every row, members first, by whose belief it is: student, teacher, untouched."""


def loss_score(logprobs: Float[np.ndarray, " T"], size: int | None = None) -> float:
    """The mean log-probability of a row's tokens, in nats; with its `size` in bytes, what a byte of it has."""
    return float(np.sum(logprobs, dtype=np.float64)) / (size or len(logprobs))


def reference_score(
    logprobs: Float[np.ndarray, " T"], reference: Float[np.ndarray, " R"], size: int | None = None
) -> float:
    """By how much likelier a row is to the model than to another one, in nats a token.

    Where the two cut it into other tokens it is a difference of sums over the same text, in nats a byte of its `size`.
    """
    if size is None and len(logprobs) != len(reference):
        raise ValueError(f"{len(logprobs)} and {len(reference)} tokens are compared by the size of their text alone")
    apart = np.sum(logprobs, dtype=np.float64) - np.sum(reference, dtype=np.float64)
    return float(apart) / (size or len(logprobs))


def zlib_score(logprobs: Float[np.ndarray, " T"], text: str) -> float:
    """The log-probability of a row in nats by bit of its text when zlib has compressed it."""
    bits = 8 * len(zlib.compress(text.encode("utf-8", "surrogatepass")))
    return float(np.sum(logprobs, dtype=np.float64)) / bits


def min_k_score(logprobs: Float[np.ndarray, " T"]) -> float:
    """The mean log-probability of the least likely fifth of a row's tokens (at least one), in nats."""
    count = max(1, int(LEAST_LIKELY * len(logprobs)))
    return float(np.sort(logprobs.astype(np.float64))[:count].mean())


def separation(members: Sequence[float], others: Sequence[float]) -> Measured:
    """The area under the ROC curve of a score; members and others that tie count half.

    Rows are the members and then the others, so that two models on the same rows are compared in pairs.
    """
    return _measured("membership_auc", members, others, finish=_area)


def found_at_few_false_positives(members: Sequence[float], others: Sequence[float]) -> Measured:
    """The part of the members that score higher than all but one in a hundred of the others; rows as in `separation`.

    Raises:
        ValueError: there are too few others to take one in a hundred of them for a member.
    """
    if len(others) < FEWEST_OTHERS:
        raise ValueError(f"{len(others)} held-out rows are too few for a rate of 1 %: it takes {FEWEST_OTHERS}")
    return _measured("membership_tpr", members, others, finish=_true_positives)


@dataclass(frozen=True, slots=True)
class Pair:
    """The positions of a training row and of a held-out row, and the tokens of both that are looked at."""

    member: int
    other: int
    tokens: int


def matched(members: Sequence[int], others: Sequence[int], *, at_most: int, seed: int = 0) -> tuple[Pair, ...]:
    """Pairs of a training row and a held-out row that differ in length as little as can be, each row at most once.

    `members` and `others` are lengths in tokens; `at_most` pairs are drawn from more. Both rows of a pair are looked at
    as far as the shorter goes: a score that grows or falls with the length of a row then tells nothing of membership.
    """
    random = np.random.default_rng(seed)
    lengths = [np.asarray(each, dtype=np.int64) for each in (members, others)]
    taken, drawn = (random.permutation(np.flatnonzero(each > 0)) for each in lengths)
    # Of more rows than these a better match is hardly to be had, and finding it takes their number to the third.
    taken, drawn = taken[: CHOICE * at_most], drawn[:at_most]
    apart = np.abs(lengths[0][taken][:, None] - lengths[1][drawn])
    pairs = zip(*linear_sum_assignment(apart), strict=True)
    found = (Pair(int(taken[a]), int(drawn[b]), int(min(lengths[0][taken[a]], lengths[1][drawn[b]]))) for a, b in pairs)
    return tuple(sorted(found, key=lambda pair: (pair.other, pair.member)))


def _measured(
    name: str,
    members: Sequence[float],
    others: Sequence[float],
    *,
    finish: Callable[[Float64[np.ndarray, "*D C"]], Float64[np.ndarray, "*D"]],
) -> Measured:
    """A function of how many members and how many others have each of the distinct scores, the lowest first."""
    scores = np.array([*members, *others], dtype=np.float64)
    if not np.all(np.isfinite(scores)):
        raise ValueError("a score is not a finite number")
    distinct, place = np.unique(scores, return_inverse=True)
    is_other = np.arange(len(scores)) >= len(members)
    sums = np.zeros((len(scores), 2 * len(distinct)))
    sums[np.arange(len(scores)), place + len(distinct) * is_other] = 1.0
    return Measured(Metric(name, "lower", "fraction", finish), sums)


def _area(counts: Float64[np.ndarray, "*D C"]) -> Float64[np.ndarray, "*D"]:
    """From counts of members and of others by score to the area under the curve; NaN without any of either."""
    members, others = _halves(counts)
    below = np.cumsum(others, axis=-1) - others / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (members * below).sum(axis=-1) / (members.sum(axis=-1) * others.sum(axis=-1))
    return np.asarray(area)


def _true_positives(counts: Float64[np.ndarray, "*D C"]) -> Float64[np.ndarray, "*D"]:
    """The rate of members at or above the lowest threshold that lets through few enough others; NaN without either."""
    members, others = (each[..., ::-1] for each in _halves(counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        caught = np.cumsum(members, axis=-1) / members.sum(axis=-1, keepdims=True)
        wrong = np.cumsum(others, axis=-1) / others.sum(axis=-1, keepdims=True)
    best = np.where(wrong <= FALSE_POSITIVES, caught, 0.0).max(axis=-1)
    return np.asarray(np.where(np.isnan(wrong[..., -1]) | np.isnan(caught[..., -1]), np.nan, best))


def _halves(counts: Float64[np.ndarray, "*D C"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = counts.shape[-1] // 2
    return counts[..., :middle], counts[..., middle:]


def told_apart(
    area: Instrument, rate: Instrument, scores: NamedScores, *, members: int, model: str, method: str
) -> list[Finding]:
    """By one score, how well members are told from others, and how many are found at few false alarms.

    `scores` has every row's, so many `members` first. Of too few others the second is not known.
    """

    def by(instrument: Instrument, measure: Callable[[Sequence[float], Sequence[float]], Measured]) -> Finding:
        measured = {who: measure(each[:members], each[members:]) for who, each in scores.items()}
        return found_beside(instrument, measured, model=model, method=method)

    others = len(scores["student"]) - members
    if others < FEWEST_OTHERS:
        too_few = f"1 % of {others} held-out rows is less than one row: it takes {FEWEST_OTHERS}"
        return [by(area, separation), rate.unknown(model, method=method, why=too_few)]
    return [by(area, separation), by(rate, found_at_few_false_positives)]
