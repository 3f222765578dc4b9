"""The score of one answer, and whether it counts as a hit.

A score is the metric that an answer by itself can be judged by, on that answer alone: whether the label or the final
answer is right; F1 of question answering and of tagging; Rouge-L of generation, since BLEU needs more than one answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from evaluation.results import FinalScores, TaskExample, TaskFacts
from evaluation.tasks.measuring import measure_one


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind of task judges one answer: by which metric, and from which score on it is a hit."""

    metric: str
    hit_from: float
    words: str


RULES: Mapping[str, Rule] = {
    "classification": Rule("accuracy", 1.0, "the label is right"),
    "exact_match": Rule("exact_match", 1.0, "the answer is right"),
    "extractive_qa": Rule("f1", 0.5, "F1 of 0.5 or more"),
    "tagging": Rule("entity_f1", 0.5, "entity F1 of 0.5 or more"),
    "generation": Rule("rouge_l", 0.5, "Rouge-L of 50 or more"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer, its score from 0 to 1, and whether that is a hit."""

    example: TaskExample
    score: float
    hit: bool


@dataclass(frozen=True, slots=True)
class BothAnswers:
    """What teacher and student made of one row, under the same evaluation seed."""

    teacher: Judged
    student: Judged


def judged(scores: FinalScores, facts: TaskFacts) -> tuple[Judged, ...]:
    """Every answer by itself, in the order of `scores`.

    A row without entities to which none were answered has no F1, and is right.
    """
    rule = RULES[facts.kind]
    alone = [replace(example, row=place) for place, example in enumerate(scores.examples)]
    measured = measure_one(facts, alone, metric=rule.metric)
    scale = 100.0 if measured.metric.unit == "points" else 1.0
    values = [value / scale for value in measured.metric.finish(measured.sums).tolist()]
    values = [1.0 if math.isnan(value) else value for value in values]
    return tuple(
        Judged(example, value, value >= rule.hit_from) for example, value in zip(scores.examples, values, strict=True)
    )


def both_answers(teacher: FinalScores, student: FinalScores, facts: TaskFacts) -> tuple[BothAnswers, ...]:
    """Answers to the same rows under the same seeds; what only one of the two has is left out."""
    theirs = {(one.example.row, one.example.seed): one for one in judged(teacher, facts)}
    ours = {(one.example.row, one.example.seed): one for one in judged(student, facts)}
    return tuple(BothAnswers(theirs[key], ours[key]) for key in sorted(theirs.keys() & ours.keys()))


def same_answer(one: Judged, other: Judged) -> bool:
    """Whether the same was read from both answers."""
    return one.example.predicted == other.example.predicted
