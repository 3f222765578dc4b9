"""Metrics of every form (a mean, a ratio, a curve over one, F1, macro-F1), and examples whose true values are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from evaluation.metric import Measured, Metric

Rows = Float64[np.ndarray, "N M"]

ACCURACY = Metric("accuracy", better="higher", unit="fraction", finish=lambda sums: sums[..., 0] / sums[..., 1])
KL = Metric("kl", better="lower", unit="nats", finish=lambda sums: sums[..., 0] / sums[..., 1])
PERPLEXITY = Metric("ppl", better="lower", unit="count", finish=lambda sums: np.exp(4 * sums[..., 0] / sums[..., 1]))
F1 = Metric(
    "f1", better="higher", unit="fraction", finish=lambda s: 2 * s[..., 0] / (2 * s[..., 0] + s[..., 1] + s[..., 2])
)
CLASSES = 3
MACRO_F1 = Metric(
    "macro_f1",
    better="higher",
    unit="fraction",
    finish=lambda s: (2 * s[..., 2 * CLASSES :] / (s[..., :CLASSES] + s[..., CLASSES : 2 * CLASSES])).mean(axis=-1),
)
"""Rows hold one-hot gold, one-hot predicted and both where they agree."""


def hits(values: Sequence[float]) -> Measured:
    """Accuracy over examples that were answered once."""
    return Measured(ACCURACY, np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1))


def labelled(gold: np.ndarray, predicted: np.ndarray) -> Rows:
    """Rows of `MACRO_F1`."""
    eye = np.eye(CLASSES)
    return np.concatenate([eye[gold], eye[predicted], eye[gold] * eye[predicted]], axis=1)


@dataclass(frozen=True, slots=True)
class Population:
    """A metric, a way to draw the rows of a worse and a better model over the same examples, and how many."""

    metric: Metric
    draw: Callable[[np.random.Generator, int], tuple[Rows, Rows]]

    def truth(self) -> tuple[float, float]:
        """The first model's value and the difference of the second, from a million examples."""
        first, second = (
            float(self.metric.finish(rows.sum(axis=0))) for rows in self.draw(np.random.default_rng(7), 10**6)
        )
        return first, second - first


def _accuracies(random: np.random.Generator, n: int) -> tuple[Rows, Rows]:
    hard = random.random(n)
    return tuple(
        np.stack([hard + noise < 1.1, np.ones(n)], axis=1).astype(float)
        for noise in random.random((2, n)) * [[1.0], [0.8]]
    )  # type: ignore[return-value]


def _ratios(random: np.random.Generator, n: int) -> tuple[Rows, Rows]:
    tokens = random.integers(5, 60, n).astype(float)
    first = random.gamma(2, 0.25, n) * tokens
    return np.stack([first, tokens], axis=1), np.stack([first * random.gamma(4, 0.22, n), tokens], axis=1)


def _spans(random: np.random.Generator, n: int) -> tuple[Rows, Rows]:
    gold = random.integers(0, 4, n)
    found = [(random.binomial(gold, right), random.binomial(2, wrong, n)) for right, wrong in ((0.6, 0.3), (0.7, 0.2))]
    first, second = (np.stack([right, wrong, gold - right], axis=1).astype(float) for right, wrong in found)
    return first, second


def _labels(random: np.random.Generator, n: int) -> tuple[Rows, Rows]:
    gold, luck = random.choice(CLASSES, n, p=[0.5, 0.3, 0.2]), random.random(n)
    first, second = (
        labelled(gold, np.where(luck < skill, gold, random.integers(0, CLASSES, n))) for skill in (0.5, 0.65)
    )
    return first, second


POPULATIONS = {
    "accuracy": Population(ACCURACY, _accuracies),
    "ratio": Population(KL, _ratios),
    "perplexity": Population(PERPLEXITY, _ratios),
    "f1": Population(F1, _spans),
    "macro_f1": Population(MACRO_F1, _labels),
}
