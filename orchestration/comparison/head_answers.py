"""What a task head says of a task's examples: the likeliest class, the tags of words, the best span of a context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from configs import ModelError
from configs.task import TaskConfig
from evaluation.results import TaskExample
from evaluation.tasks.examples import Example
from evaluation.tasks.label_names import LabelNames
from evaluation.tasks.spans import spans_of
from teacher_server.encoder import SpanWindow, TaskHead
from teacher_server.heads import HeadKind

LONGEST_SPAN = 30
"""Tokens of the longest answer that is looked for (as in Devlin et al. 2019)."""


@dataclass(frozen=True, slots=True)
class _Answer:
    predicted: tuple[str, ...] | None
    confidence: float = math.nan
    text: str = ""


def answer_by_head(head: TaskHead, examples: Sequence[Example], *, task: TaskConfig) -> tuple[TaskExample, ...]:
    """What a model with a task head makes of the examples of a task.

    A head reads what a row says itself, without the words of the template: its text or two, its tokens, or its question
    and context.

    Raises:
        ModelError: its head is one for other tasks, or knows other labels.
    """
    if head.kind != task.kind:
        raise ModelError(f"its head does {head.kind}, not {task.kind}: name another model or task")
    return tuple(
        TaskExample(
            row=example.row,
            seed=0,
            shown=example.text,
            gold=example.gold,
            answer=answer.text,
            predicted=answer.predicted,
            confidence=answer.confidence,
            tokens=0,
            pair=example.pair,
        )
        for example, answer in zip(examples, WAYS[head.kind](head, examples, task), strict=True)
    )


def best_span(windows: Sequence[SpanWindow]) -> tuple[int, int] | None:
    """Beginning and end, in characters of the context, of the likeliest answer of at most `LONGEST_SPAN` tokens."""
    best, place = -math.inf, None
    for window in windows:
        scores = window.start[:, None] + window.end[None, :]
        allowed = np.triu(np.ones_like(scores, dtype=bool)) & ~np.triu(np.ones_like(scores, dtype=bool), LONGEST_SPAN)
        scores = np.where(allowed, scores, -np.inf)
        if scores.size and scores.max() > best:
            best = float(scores.max())
            start, end = np.unravel_index(int(scores.argmax()), scores.shape)
            place = window.characters[int(start)][0], window.characters[int(end)][1]
    return place


def _classes(head: TaskHead, examples: Sequence[Example], task: TaskConfig) -> list[_Answer]:
    names = LabelNames.of(task)
    labels = [names.named(label) for label in head.labels]
    if None in labels or set(labels) != set(task.verbalisers):
        raise ModelError(
            f"its head knows the labels {', '.join(head.labels)}, and task {task.name} has "
            f"{', '.join(task.verbalisers)}: make id2label in its config.json say those of the task"
        )
    found = []
    for row in _softmax(head.classify([example.parts for example in examples])):
        best = int(row.argmax())
        found.append(_Answer((str(labels[best]),), float(row[best])))
    return found


def _tags(head: TaskHead, examples: Sequence[Example], task: TaskConfig) -> list[_Answer]:
    try:
        types = {span.type for tag in head.labels for span in spans_of([tag])}
    except ValueError as error:
        raise ModelError(f"a label of its head is not a tag ({error}): correct id2label in its config.json") from error
    if not types <= set(task.verbalisers):
        raise ModelError(
            f"its head tags {', '.join(sorted(types))}, and task {task.name} has {', '.join(task.verbalisers)}: make "
            "id2label in its config.json say those of the task"
        )
    found = []
    for logits in head.tag([example.tokens for example in examples]):
        # A word of which no token is made is in no entity.
        tags = ["O" if np.isnan(row[0]) else head.labels[int(row.argmax())] for row in logits]
        found.append(_Answer(tuple(map(str, spans_of(tags)))))
    return found


def _spans(head: TaskHead, examples: Sequence[Example], _task: TaskConfig) -> list[_Answer]:
    contexts = [example.context for example in examples]
    found = []
    questions = [example.parts[0] for example in examples]
    asked = head.find_spans(questions, contexts)
    for context, windows in zip(contexts, asked, strict=True):
        place = best_span(windows)
        answer = "" if place is None else context[place[0] : place[1]]
        found.append(_Answer((answer,), text=answer))
    return found


WAYS: Mapping[HeadKind, Callable[[TaskHead, Sequence[Example], TaskConfig], list[_Answer]]] = {
    "classification": _classes,
    "tagging": _tags,
    "extractive_qa": _spans,
}
"""How each kind of head answers."""


def _softmax(logits: Float[np.ndarray, "N L"]) -> Float[np.ndarray, "N L"]:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: Float[np.ndarray, "N L"] = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
