"""F1 of entities: strict, by type, and with half a point for a part.

Strict counts an entity when both of its ends and its type are right (the F1 of CoNLL). Partial is that of SemEval 2013
task 9, as nervaluate has it: ends alone, one point for the same ends and half a point for an overlap, each entity used
once from left to right. Entities of one row do not overlap each other.

An entity that an answer names and that does not stand in the row counts as answered, and can never be right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from evaluation.metric import Finish, Measured, Metric
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import ratio, row_sums
from evaluation.tasks.spans import Span, read_span

HALF = 0.5
"""What an overlap is worth."""


def tagging(examples: Sequence[TaskExample], types: Sequence[str]) -> tuple[Measured, ...]:
    """Strict and partial F1, strict precision and recall, and the strict F1 of every type as `entity_f1[TYPE]`."""
    read = [(_spans(example.gold), _spans(example.predicted or ())) for example in examples]
    strict = row_sums(examples, [_strict(gold, answered) for gold, answered in read], columns=3)
    partial = row_sums(examples, [_partial(gold, answered) for gold, answered in read], columns=3)
    return (
        Measured(ENTITY_F1, strict),
        Measured(ENTITY_F1_PARTIAL, partial),
        Measured(ENTITY_PRECISION, strict),
        Measured(ENTITY_RECALL, strict),
        *(
            Measured(_fraction(f"entity_f1[{kind}]", _f1), row_sums(examples, _of_type(read, kind), columns=3))
            for kind in types
        ),
    )


def _spans(texts: Sequence[str]) -> list[Span]:
    return sorted(read_span(text) for text in texts)


def _of_type(read: Sequence[tuple[list[Span], list[Span]]], kind: str) -> list[tuple[float, int, int]]:
    return [
        _strict([span for span in gold if span.type == kind], [span for span in answered if span.type == kind])
        for gold, answered in read
    ]


def _strict(gold: list[Span], answered: list[Span]) -> tuple[float, int, int]:
    """Points, gold entities, answered entities."""
    return float(len(set(gold) & set(answered))), len(gold), len(answered)


def _partial(gold: list[Span], answered: list[Span]) -> tuple[float, int, int]:
    points = 0.0
    free = list(gold)
    for span in answered:
        same = next((other for other in free if (other.start, other.end) == (span.start, span.end)), None)
        near = same or next((other for other in free if other.overlaps(span)), None)
        if near is not None:
            points += 1.0 if same else HALF
            free.remove(near)
    return points, len(gold), len(answered)


def _f1(sums: Float64[np.ndarray, "*D 3"]) -> Float64[np.ndarray, "*D"]:
    return ratio(2.0 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _precision(sums: Float64[np.ndarray, "*D 3"]) -> Float64[np.ndarray, "*D"]:
    return ratio(sums[..., 0], sums[..., 2])


def _recall(sums: Float64[np.ndarray, "*D 3"]) -> Float64[np.ndarray, "*D"]:
    return ratio(sums[..., 0], sums[..., 1])


def _fraction(name: str, finish: Finish) -> Metric:
    return Metric(name, better="higher", unit="fraction", finish=finish)


ENTITY_F1 = _fraction("entity_f1", _f1)
ENTITY_F1_PARTIAL = _fraction("entity_f1_partial", _f1)
ENTITY_PRECISION = _fraction("entity_precision", _precision)
ENTITY_RECALL = _fraction("entity_recall", _recall)
