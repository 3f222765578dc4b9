"""Results of a comparison as tests need them: small, whole, and with numbers that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.closeness import TokenBeliefs, closeness_of, joined
from evaluation.results import (
    Closeness,
    ModelResults,
    Provenance,
    RunCost,
    RunResults,
    Serving,
    Speed,
    Spread,
    StageCost,
)
from evaluation.text import wording

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


def closeness(answers: Sequence[str], references: Sequence[str], *, seed: int = 0) -> Closeness:
    """Made-up beliefs at the teacher's answers, and how close the wording of one's own is."""
    scored = closeness_of(random_beliefs(seed + at, rows=4 + at) for at in range(len(answers)))
    tokens = [len(text.split()) for text in answers], [len(text.split()) for text in references]
    return joined(scored, wording(answers, references, written=tokens[0], referenced=tokens[1]))


def serving(tokens_per_s: float, *, measured_on: str = "2 of 2 CPUs, a processor; bfloat16") -> Serving:
    """One speed, measured once."""
    unknown, speed = Spread(math.nan, math.nan, math.nan, 0), Spread(*[tokens_per_s] * 3, 1)
    return Serving(measured_on, (Speed(8, unknown, unknown, speed),), math.nan, math.nan, math.nan)


def model_results(name: str, **fields: Any) -> ModelResults:
    """A row; `fields` take the place of what is made up."""
    answers = fields.setdefault("answers", ("Paris.", "Four."))
    role = {"teacher": "teacher", "untouched": "untouched"}.get(name, "student")
    made: dict[str, Any] = {
        "role": role,
        "method": "kd" if role == "student" else "",
        "start": "untouched" if role == "student" else None,
        "digest": f"digest of {name}",
        "parameters": 99_000_000,
        "disk_bytes": 198_000_000,
        "closeness": closeness(answers, ("Paris.", "Four.")[: len(answers)]) if answers else None,
        "exposure": None,
        "answer_tokens": tuple(len(answer.split()) for answer in answers),
        "tasks": (),
        "serving": serving(215.4),
        "training": None,
        "failures": (),
    }
    return ModelResults(name=name, **(made | fields))


def run_results(*models: ModelResults, **fields: Any) -> RunResults:
    """A comparison of these models, teacher and student where none is named."""
    made: dict[str, Any] = {
        "experiment": "quickstart",
        "settings": {"teacher.top_k": "16"},
        "prompts": ("Capital of France?", "2 + 2?"),
        "references": ("Paris.", "Four."),
        "reference_tokens": (1, 1),
        "models": models or (model_results("teacher", parameters=134_515_008), model_results("kd")),
        "tasks": (),
        "cost": run_cost(),
        "provenance": Provenance("a teacher", "i" * 64, None, "v" * 64, "c" * 64, {}, {"vllm": "1.2"}),
        "rows_set_aside": 2,
        "failures": (),
        "notes": (),
    }
    return RunResults(**(made | fields))


def run_cost() -> RunCost:
    """Two stages, and nothing known of energy and money."""
    stages = (StageCost("teacher", 61.0, math.nan, math.nan), StageCost("fill", 62.4, math.nan, math.nan))
    return RunCost(stages, "", 12_345, 0, math.nan, math.nan, math.nan, math.nan, math.nan, "")
