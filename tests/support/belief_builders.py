"""What a teacher and a student believe at the positions of an answer, made up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.closeness import TokenBeliefs

WORDS = 11
"""Tokens of the vocabulary of `random_beliefs`."""


def distributions(seed: int, *, rows: int, spread: float = 2.0) -> NDArray[np.float64]:
    """Log-probabilities [rows, WORDS] in nats."""
    logits = np.random.default_rng(seed).normal(scale=spread, size=(rows, WORDS))
    logprobs: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logprobs


def beliefs(teacher: NDArray[np.float64], student: NDArray[np.float64], *, k: int, target: int = 0) -> TokenBeliefs:
    """What is kept of two full distributions [S, V]: the teacher's k best ids, the mass of the others, own best ids."""
    words = teacher.shape[1]
    order, own = np.argsort(-teacher, axis=1), np.argsort(-student, axis=1)
    best, rest = order[:, :k], order[:, k:]

    def tail(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
        if k == words:
            return np.full(len(logprobs), -np.inf)
        mass: NDArray[np.float64] = np.exp(np.take_along_axis(logprobs, rest, axis=1)).sum(axis=1)
        return np.log(mass)

    return TokenBeliefs(
        teacher_topk=np.take_along_axis(teacher, best, axis=1),
        teacher_tail=tail(teacher),
        student_topk=np.take_along_axis(student, best, axis=1),
        student_tail=tail(student),
        student_target=student[:, target],
        target_ids=np.full(len(teacher), target),
        teacher_ids=best,
        own_ids=own[:, :5],
        own_best=student.max(axis=1) if len(student) else np.zeros(0),
    )


def random_beliefs(seed: int, *, rows: int, k: int = 4) -> TokenBeliefs:
    """Of a teacher and a student that have nothing to do with each other."""
    return beliefs(distributions(seed, rows=rows), distributions(seed + 1000, rows=rows), k=k)
