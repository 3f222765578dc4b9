"""What a model's own beginnings cost it (exposure bias), after Arora et al. 2022 (2204.01171).

A model learns after its teacher's tokens and is used after its own. Its divergence from the teacher, KL(teacher ‖
model) in nats a token, is measured at every position of both: `free` after its own tokens, `forced` after the
teacher's. The excess is what the sum over the first l free positions is above that of forced ones, as a fraction of it
(the paper's %ExAccErr): 0 for a model that is as good after its own words, and growing with l where mistakes pile up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import Exposure

ENOUGH = 0.5
"""The part of the answers of either kind that has to reach a position for it to count in the excess."""


def exposure_of(
    # Every answer has a length of its own, so no axis has a name.
    free: Sequence[Float[np.ndarray, " _"]],
    forced: Sequence[Float[np.ndarray, " _"]],
    gaps: Sequence[Float[np.ndarray, " _"]],
) -> Exposure:
    """From divergences by position: of each answer of the model, of each of the teacher's to the same prompts.

    `gaps` are log q - log p of the model's own tokens, an answer.
    """
    reach = min(_reach(free), _reach(forced))
    free_sums, free_counts = _by_position(free)
    forced_sums, forced_counts = _by_position(forced)
    return Exposure(
        free=free_sums,
        free_counts=free_counts,
        forced=forced_sums,
        forced_counts=forced_counts,
        reverse_sums=tuple(float(each.astype(np.float64).sum()) for each in gaps),
        lengths=tuple(len(each) for each in gaps),
        answers=tuple(
            (_sum(own[:reach]), float(len(own[:reach])), _sum(theirs[:reach]), float(len(theirs[:reach])))
            for own, theirs in zip(free, forced, strict=True)
        ),
    )


def excess_curve(exposure: Exposure) -> tuple[float, ...]:
    """The excess after the first l positions, l = 1, 2, ..., as a fraction; NaN where there is nothing to exceed."""
    length = min(len(exposure.free), len(exposure.forced))
    free = np.cumsum(_means(exposure.free, exposure.free_counts)[:length])
    forced = np.cumsum(_means(exposure.forced, exposure.forced_counts)[:length])
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(np.where(forced > 0, free / forced - 1.0, np.nan).tolist())


def excess_error(exposure: Exposure) -> Measured:
    """The excess over all positions that half of the answers reach, as a function of sums over answers.

    Of positions it takes the mean over tokens, of which a bootstrap over answers makes an interval.
    """
    return Measured(Metric("exposure", "lower", "fraction", _excess), np.array(exposure.answers).reshape(-1, 4))


def own_reverse_kl(exposure: Exposure) -> Measured:
    """KL(model ‖ teacher) in nats a token, estimated on what the model itself wrote."""
    sums = np.stack([np.array(exposure.reverse_sums), np.array(exposure.lengths, dtype=np.float64)], axis=1)
    return Measured(Metric("own_reverse_kl", "lower", "nats", ratio_of), sums)


def _excess(sums: Float64[np.ndarray, "*D 4"]) -> Float64[np.ndarray, "*D"]:
    forced = ratio_of(sums[..., 2:])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(forced > 0, ratio_of(sums[..., :2]) / forced - 1.0, np.nan))


def _by_position(answers: Sequence[NDArray[np.floating]]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Sums over answers, and how many reach each position."""
    longest = max(map(len, answers), default=0)
    sums, counts = np.zeros(longest), np.zeros(longest, dtype=np.int64)
    for answer in answers:
        sums[: len(answer)] += answer
        counts[: len(answer)] += 1
    return tuple(sums.tolist()), tuple(counts.tolist())


def _reach(answers: Sequence[NDArray[np.floating]]) -> int:
    """The position up to which enough of the answers go."""
    _, counts = _by_position(answers)
    return sum(count >= ENOUGH * len(answers) for count in counts)


def _means(sums: Sequence[float], counts: Sequence[int]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.array(sums, dtype=np.float64) / np.maximum(np.array(counts), 1)
    return means


def _sum(values: NDArray[np.floating]) -> float:
    return float(values.astype(np.float64).sum())
