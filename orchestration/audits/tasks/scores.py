"""From the logits of a model at the units of an example to how likely it finds a label, or what another one believes.

Everything is a mean over the decisions of the example, in nats: the class of a text, the tag of each word, the first
and the last token of an answer. Shapes: U units, C labels (2 for spans: first, last).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from configs.task import TaskKind


def log_probabilities(logits: Float[np.ndarray, "U C"], *, kind: TaskKind) -> Float64[np.ndarray, "U C"]:
    """Of each label at a unit; of spans of each unit to be the first, and to be the last."""
    values = logits.astype(np.float64)
    axis = 0 if kind == "extractive_qa" else 1
    return np.asarray(values - np.logaddexp.reduce(values, axis=axis, keepdims=True))


def label_score(logits: Float[np.ndarray, "U C"], gold: Sequence[int], *, kind: TaskKind) -> float:
    """The mean log-probability of the right decisions; all of them have to be known."""
    known = log_probabilities(logits, kind=kind)
    at = np.asarray(gold)
    right = known[at, np.arange(2)] if kind == "extractive_qa" else known[np.arange(len(known)), at]
    return float(right.mean())


def certainty(logits: Float[np.ndarray, "U C"], *, kind: TaskKind) -> float:
    """The mean log-probability of what the model decides itself."""
    known = log_probabilities(logits, kind=kind)
    return float(known.max(axis=0 if kind == "extractive_qa" else 1).mean())


def belief_score(logits: Float[np.ndarray, "U C"], believed: Float[np.ndarray, "U C"], *, kind: TaskKind) -> float:
    """The mean log-probability that a model gives to what another one believes: minus the cross-entropy."""
    own, others = log_probabilities(logits, kind=kind), log_probabilities(believed, kind=kind)
    crossed = np.exp(others) * own
    return float(crossed.sum(axis=0 if kind == "extractive_qa" else 1).mean())
