"""From what a model made of a task's examples to numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.metric import Measured
from evaluation.results import TaskExample, TaskFacts
from evaluation.tasks.metrics.classification import classification
from evaluation.tasks.metrics.exact_match import exact_match
from evaluation.tasks.metrics.generation import generation
from evaluation.tasks.metrics.question_answering import question_answering
from evaluation.tasks.metrics.tagging import tagging
from evaluation.tasks.spans import read_span

UNDEFINED = {
    "mcc": "all rows have the same label",
    "macro_f1": "no label occurs",
    "entity_f1": "no entity in the rows, none in the answers",
    "entity_f1_partial": "no entity in the rows, none in the answers",
    "entity_precision": "no entity in the answers",
    "entity_recall": "no entity in the rows",
    "bleu": "no word in the answers, none in the references",
    "chrf": "no letter in the answers, none in the references",
}
"""Why a metric has no value although rows were answered."""


def measure(kind: str, examples: Sequence[TaskExample], *, labels: Sequence[str] = ()) -> tuple[Measured, ...]:
    """Every metric of a kind of task, those of `configs.task.METRICS` first and in their order.

    `labels` are the labels of classification or the types of tagging. One row of sums for each row of the task, in the
    order of `row_numbers`: answers under several evaluation seeds are added up.

    Raises:
        ValueError: there is no such kind.
    """
    match kind:
        case "classification":
            return classification(examples, labels)
        case "tagging":
            return tagging(examples, labels)
        case "extractive_qa":
            return question_answering(examples)
        case "generation":
            return generation(examples)
        case "exact_match":
            return exact_match(examples)
    raise ValueError(f"kind={kind}: tasks are classification, tagging, extractive_qa, generation or exact_match")


def measure_one(facts: TaskFacts, examples: Sequence[TaskExample], *, metric: str | None = None) -> Measured:
    """One metric of a task: the one that it is judged by, or the named one of its kind."""
    found = measure(facts.kind, examples, labels=facts.labels)
    return next(one for one in found if one.metric.name == (metric or facts.metric))


def undefined_because(measured: Measured) -> str | None:
    """Why a metric has no value, in one line; None where it has one."""
    if not math.isnan(measured.value):
        return None
    if not len(measured.sums):
        return "no row was answered"
    return UNDEFINED[measured.metric.name.partition("[")[0]]


def parse_failures(examples: Sequence[TaskExample]) -> int:
    """Answers of which nothing could be read. They count as misses."""
    return sum(example.predicted is None for example in examples)


def entities_not_in_the_row(examples: Sequence[TaskExample]) -> int:
    """Entities that answers name and that do not stand in their rows; for tagging. They count as wrong."""
    return sum(not read_span(text).placed for example in examples for text in example.predicted or ())


def notes_under(*, nowhere: Mapping[str, int], signatures: Mapping[str, str]) -> tuple[str, ...]:
    """Sentences for below the table of a task, where there is anything to say.

    `nowhere` counts, by model, the entities that do not stand in the rows; `signatures` are by metric.
    """
    notes = []
    if any(nowhere.values()):
        counts = ", ".join(f"{model} {count}" for model, count in nowhere.items() if count)
        notes.append(f"Entities that answers name and that do not stand in the row, which count as wrong: {counts}.")
    for signature in dict.fromkeys(filter(None, signatures.values())):
        names = ", ".join(name.replace("_", " ") for name, each in signatures.items() if each == signature)
        notes.append(f"How {names} is computed: {signature}.")
    return tuple(notes)


def baseline(
    kind: str,
    metric: str,
    test: Sequence[TaskExample],
    *,
    train_gold: Sequence[tuple[str, ...]] = (),
    labels: Sequence[str] = (),
) -> float:
    """What the best constant answer scores on `test`, of which only rows and gold are read.

    It is the most frequent answer of `train_gold`, or of the test rows themselves where there is no train split (ties:
    the first in the alphabet); for tagging it is no entity at all. NaN where the metric is undefined.
    """
    if kind == "tagging":
        constant: tuple[str, ...] = ()
    else:
        golds = train_gold or [example.gold for example in test]
        counts = Counter(answer for gold in golds for answer in set(gold))
        constant = (min(counts, key=lambda answer: (-counts[answer], answer)),) if counts else ()
    answered = [replace(example, predicted=constant) for example in test]
    return next(one.value for one in measure(kind, answered, labels=labels) if one.metric.name == metric)
