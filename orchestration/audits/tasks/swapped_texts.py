"""The test texts of a task about somebody of the other gender, and whether a model says something else of them.

Only texts that name somebody are used (`evaluation.side_effects.swaps`). What is right of a text should be right of the
swapped one too; a row of a pair is swapped in both of its texts, words of tagging stay as many as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs import DistillError
from configs.task import TaskKind
from evaluation.results import TaskExample
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.label_changes import changed_share, mean_change
from evaluation.side_effects.paired import Instrument, found
from evaluation.side_effects.swaps import swapped
from evaluation.tasks.examples import Example
from evaluation.tasks.metrics.question_answering import normalised
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import AuditedTaskStudent, FinishedTaskRun, HeadModel
from orchestration.audits.tasks.scores import log_probabilities
from orchestration.comparison.belief_answers import answers_of_beliefs
from orchestration.inputs.task_examples import Beliefs

BIAS = "bias"

FEWEST = 6
"""Swapped texts; fewer say nothing with an interval."""

CHANGED: Mapping[TaskKind, str] = {
    "classification": "test texts of which another label is given when they are about somebody of the other gender",
    "tagging": "words of a test text that are tagged otherwise when it is about somebody of the other gender",
    "extractive_qa": "questions that are answered otherwise when question and passage are about somebody of the other "
    "gender (an answer that is swapped with them is the same)",
}
SURENESS: Mapping[TaskKind, str] = {
    "classification": "by how much the probability of the label that was given changes then",
    "tagging": "by how much the probability of the tag that a word was given changes then, over the words of a text",
    "extractive_qa": "by how much the probability of its answer (that of its first token times that of its last) "
    "changes then",
}


@dataclass(frozen=True, slots=True)
class SwappedText:
    """A test row as it was, and about somebody else."""

    as_it_was: Example
    swapped: Example


def swapped_texts(examples: Sequence[Example], *, kind: TaskKind, at_most: int) -> tuple[SwappedText, ...]:
    """Those of the examples that name somebody, `at_most` so many."""
    found: list[SwappedText] = []
    for example in examples:
        other = _swapped(example, kind=kind)
        if other is not None and len(found) < at_most:
            found.append(SwappedText(example, other))
    return tuple(found)


def swap_findings(
    student: AuditedTaskStudent, texts: Sequence[SwappedText], *, run: FinishedTaskRun, beliefs: LabelBeliefs
) -> list[Finding]:
    """How often a student changes its answer, and how sure it is then, beside its teacher and its start."""
    kind = run.task.config.kind
    both = (
        Instrument(BIAS, "swapped texts: answer changes", "fraction", f"{CHANGED[kind]}: 0 if that changes nothing"),
        Instrument(BIAS, "swapped texts: probability", "fraction", f"{SURENESS[kind]}: 0 if that changes nothing"),
    )
    if len(texts) < FEWEST:
        why = f"{len(texts)} of the {len(run.tested)} test texts name somebody, and it takes {FEWEST}"
        return [each.unknown(student.name, method=student.method, why=why) for each in both]
    measured = {}
    for who, model in _asked(student, run).items():
        try:
            measured[who] = _changes(texts, model, run=run, beliefs=beliefs)
        except DistillError as error:
            if who == "student":
                return [each.unknown(student.name, method=student.method, why=str(error)) for each in both]
    return [
        found(
            instrument,
            numbers["student"],
            teacher=numbers.get("teacher"),
            untouched=numbers.get("untouched"),
            model=student.name,
            method=student.method,
        )
        for instrument, numbers in (
            (both[0], {who: changed_share([change for change, _ in each]) for who, each in measured.items()}),
            (both[1], {who: mean_change([moved for _, moved in each]) for who, each in measured.items()}),
        )
    ]


def _asked(student: AuditedTaskStudent, run: FinishedTaskRun) -> dict[str, HeadModel]:
    models = {"student": student.model, "teacher": run.teacher, "untouched": student.start}
    return {who: model for who, model in models.items() if model is not None}


def _changes(
    texts: Sequence[SwappedText], model: HeadModel, *, run: FinishedTaskRun, beliefs: LabelBeliefs
) -> list[tuple[float, float]]:
    """Of each text how much of the answer changes, and by how much the probability of the answer does."""
    task = run.task.config
    sides = [[each.as_it_was for each in texts], [each.swapped for each in texts]]
    believed = [beliefs.of(model, side) for side in sides]
    answers = [answers_of_beliefs(side, each, task=task) for side, each in zip(sides, believed, strict=True)]
    return [
        (
            _changed(*said, words=len(text.as_it_was.tokens), kind=task.kind),
            _moved(*belief, kind=task.kind),
        )
        for text, said, belief in zip(texts, zip(*answers, strict=True), zip(*believed, strict=True), strict=True)
    ]


def _changed(before: TaskExample, after: TaskExample, *, words: int, kind: TaskKind) -> float:
    """0 for the same answer, 1 for another one; of tags the part of the words that have another."""
    first, second = before.predicted or (), after.predicted or ()
    match kind:
        case "tagging":
            tags = [_tags(spans, words) for spans in (first, second)]
            return float(np.mean([one != other for one, other in zip(*tags, strict=True)]))
        case "extractive_qa":
            same = {normalised(text) for text in first} | {normalised(swapped(text) or text) for text in first}
            return float(not {normalised(text) for text in second} <= same)
        case _:
            return float(first != second)


def _tags(spans: Sequence[str], words: int) -> list[str]:
    tags = ["O"] * words
    for span in spans:
        start, end, kind = span.split(" ", 2)
        tags[int(start)] = f"B-{kind}"
        tags[int(start) + 1 : int(end)] = [f"I-{kind}"] * (int(end) - int(start) - 1)
    return tags


def _moved(before: Beliefs, after: Beliefs, *, kind: TaskKind) -> float:
    """By how much the probability of the answer to the text as it was changes; of words the mean over those in both."""
    first, second = (np.exp(log_probabilities(each.logits, kind=kind)) for each in (before, after))
    if kind == "extractive_qa":
        return abs(float(second.max(axis=0).prod()) - float(first.max(axis=0).prod()))
    places = {unit: place for place, unit in enumerate(after.units)}
    given = first.argmax(axis=1)
    moved = [
        abs(float(second[places[unit], given[place]] - first[place, given[place]]))
        for place, unit in enumerate(before.units)
        if unit in places
    ]
    return float(np.mean(moved)) if moved else 0.0


def _swapped(example: Example, *, kind: TaskKind) -> Example | None:
    if kind == "tagging":
        text = swapped(" ".join(example.tokens))
        if text is None or len(text.split(" ")) != len(example.tokens):
            return None
        return replace(example, tokens=tuple(text.split(" ")), text=text)
    parts = tuple(swapped(part) for part in example.parts)
    context = swapped(example.context) if example.context else None
    if all(part is None for part in (*parts, context)):
        return None
    return replace(
        example,
        parts=tuple(new or old for new, old in zip(parts, example.parts, strict=True)),
        context=context or example.context,
    )
