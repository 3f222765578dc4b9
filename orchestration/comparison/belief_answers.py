"""What beliefs about the units of an example come to as an answer: a class, tagged words, or a span of a passage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from configs.task import TaskConfig
from evaluation.results import TaskExample
from evaluation.tasks.examples import Example
from evaluation.tasks.spans import spans_of
from orchestration.comparison.head_answers import best_span
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_texts import OUTSIDE, decision_labels
from teacher_server.encoder import SpanWindow


def answers_of_beliefs(
    examples: Sequence[Example], beliefs: Sequence[Beliefs | None], *, task: TaskConfig
) -> tuple[TaskExample, ...]:
    """The likeliest answer to each example, as the comparison shows those of every model; None is no answer."""
    return tuple(_answer(example, belief, task=task) for example, belief in zip(examples, beliefs, strict=True))


def _answer(example: Example, belief: Beliefs | None, *, task: TaskConfig) -> TaskExample:
    empty = TaskExample(
        row=example.row,
        seed=0,
        shown=example.text,
        gold=example.gold,
        answer="",
        predicted=None,
        confidence=math.nan,
        tokens=0,
        pair=example.pair,
    )
    if belief is None or not len(belief.logits):
        return empty
    match task.kind:
        case "extractive_qa":
            window = SpanWindow(belief.logits[:, 0], belief.logits[:, 1], belief.units)
            place = best_span([window])
            text = "" if place is None else example.context[place[0] : place[1]]
            return replace(empty, answer=text, predicted=(text,))
        case "tagging":
            labels = decision_labels(task)
            tags = [OUTSIDE] * len(example.tokens)  # of a word that a teacher does not see
            for (word, _), row in zip(belief.units, belief.logits, strict=True):
                tags[word] = labels[int(row.argmax())]
            sure = float(_probabilities(belief).max(axis=1).prod())
            return replace(empty, predicted=tuple(map(str, spans_of(tags))), confidence=sure)
        case _:
            (row,) = _probabilities(belief)
            best = int(row.argmax())
            return replace(empty, predicted=(decision_labels(task)[best],), confidence=float(row[best]))


def _probabilities(belief: Beliefs) -> NDArray[np.float64]:
    logits = belief.logits.astype(np.float64)
    found: NDArray[np.float64] = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return found
