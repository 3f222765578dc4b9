"""Which rows a student of a task learned from, and rows of the same kind that it never learned from.

Members are examples that its steps have read, as they stand in the lessons of the run. Labelled ones are known by their
text too, from the train split of the task; unlabelled ones learn what the teacher believes, which the lesson holds.
Others are the dev and test rows of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from configs import DataError
from configs.task_stages import GOLD
from evaluation.tasks.examples import Example
from orchestration.audits.tasks.beliefs import LabelBeliefs, Logits
from orchestration.audits.tasks.finished import AuditedTaskStudent, FinishedTaskRun, LearnedStage
from orchestration.inputs.task_texts import ReadExample
from student_train.feed.examples import UNKNOWN, ExampleSet
from student_train.feed.task_steps import task_batches, task_steps

Tokens = tuple[tuple[int, ...], int]
"""By what an example is known again: its tokens, and where its second text begins."""


@dataclass(frozen=True, slots=True, eq=False)
class TaughtRow:
    """A row at those units that both student and teacher see, and what the teacher believes of them."""

    read: ReadExample
    belief: Logits


@dataclass(frozen=True, slots=True, eq=False)
class AskedRow:
    """A row as the student reads it; its text where that is known, and the teacher's belief where a lesson holds it."""

    read: ReadExample
    example: Example | None
    taught: TaughtRow | None


@dataclass(frozen=True, slots=True)
class LearnedRows:
    """Rows that a student learned from, by whether their labels were known, and rows that it did not learn from.

    `taught` says that it learned what the teacher believes of the labelled ones too.
    """

    labelled: tuple[AskedRow, ...]
    unlabelled: tuple[AskedRow, ...]
    others: tuple[AskedRow, ...]
    taught: bool
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    """What lessons hold, by tokens."""

    labelled: dict[Tokens, tuple[ReadExample, Example]] = field(default_factory=dict)
    unlabelled: dict[Tokens, AskedRow] = field(default_factory=dict)
    taught: dict[Tokens, TaughtRow] = field(default_factory=dict)
    copies: set[Tokens] = field(default_factory=set)


def learned_rows(student: AuditedTaskStudent, run: FinishedTaskRun, beliefs: LabelBeliefs) -> LearnedRows:
    """What a student learned from, and rows of the same kind that it did not.

    Raises:
        DataError: a lesson is gone, or not what it was.
        ModelError: the student's tokenizer does not load.
    """
    texts = _by_tokens(run.task.train, student, beliefs)
    found, notes = _Found(), list[str]()
    for stage in student.stages:
        notes += _add(found, stage, run, texts=texts)
    held_out = (*run.task.dev, *run.tested)
    members = found.labelled.keys() | found.unlabelled.keys() | found.copies
    others = {
        tokens: AskedRow(read, example, found.taught.get(tokens))
        for tokens, (read, example) in _by_tokens(held_out, student, beliefs).items()
        if tokens not in members
    }
    if found.copies:
        notes.append(f"{len(found.copies):,} texts that were made from others were not asked about")
    labelled = (AskedRow(read, example, found.taught.get(tokens)) for tokens, (read, example) in found.labelled.items())
    return LearnedRows(
        labelled=tuple(labelled),
        unlabelled=tuple(found.unlabelled.values()),
        others=tuple(others.values()),
        taught=any(stage.settings.needs_answers for stage in student.stages),
        notes=tuple(dict.fromkeys(notes)),
    )


def _by_tokens(
    examples: Sequence[Example], student: AuditedTaskStudent, beliefs: LabelBeliefs
) -> dict[Tokens, tuple[ReadExample, Example]]:
    read = beliefs.read(student.model, examples)
    return {_tokens(one): (one, example) for one, example in zip(read, examples, strict=True)}


def _tokens(read: ReadExample) -> Tokens:
    return read.token_ids, read.split


def _add(
    found: _Found, stage: LearnedStage, run: FinishedTaskRun, *, texts: dict[Tokens, tuple[ReadExample, Example]]
) -> list[str]:
    """What a stage has read, and what its lessons hold of the teacher's beliefs; gives what has to be said of it."""
    train, dev = _lesson(run, stage.train), _lesson(run, stage.dev)
    name, notes = stage.settings.objective, list[str]()
    steps = task_steps(stage.settings, examples=train)
    if stage.selected_step is not None:
        steps = min(steps, stage.selected_step)
    batches = task_batches(stage.settings, examples=train, first=0, steps=steps)
    rows = sorted({row for batch in batches for row in batch.tolist()})
    unlabelled_too = any(name != GOLD for name in stage.settings.data)
    for row in rows:
        read, taught = lesson_row(train, row)
        tokens, known = _tokens(read), UNKNOWN not in read.gold
        if tokens in texts and (known or not unlabelled_too):
            found.labelled[tokens] = texts[tokens]
        elif not known and unlabelled_too:
            found.unlabelled[tokens] = AskedRow(read, None, taught)
        else:
            found.copies.add(tokens)
    for examples in (train, dev):
        for row in range(len(examples)):
            read, taught = lesson_row(examples, row)
            if taught is not None:
                found.taught[_tokens(read)] = taught
    if len(rows) < len(train):
        notes.append(f"{name} read {len(rows):,} of its {len(train):,} examples, and only those count as training rows")
    if run.config.data.agreement is not None and stage.settings.needs_answers:
        notes.append(f"data.agreement chose the rows that {name} learned from, and not the held-out ones")
    return notes


def lesson_row(examples: ExampleSet, row: int) -> tuple[ReadExample, TaughtRow | None]:
    """An example of a lesson, its units without their names; and what the teacher believes of it, if that is there."""
    tokens = slice(*examples.token_offsets[row : row + 2])
    units = slice(*examples.unit_offsets[row : row + 2])
    gold = slice(*examples.decision_offsets[row : row + 2])
    read = ReadExample(
        token_ids=tuple(examples.token_ids[tokens].tolist()),
        split=int(examples.split[row]),
        units=(),
        unit_tokens=tuple(examples.unit_tokens[units].tolist()),
        gold=tuple(examples.gold[gold].tolist()),
        cut=False,
    )
    return read, None if examples.teacher is None else TaughtRow(read, np.asarray(examples.teacher[units]))


def _lesson(run: FinishedTaskRun, digest: str) -> ExampleSet:
    """The examples of this digest in the lessons of the run.

    Raises:
        DataError: they are not there, or not what they were.
    """
    for path in run.lessons.glob(f"*-{digest[:16]}.safetensors"):
        examples = ExampleSet.load(path)
        if examples.digest == digest:
            return examples
    raise DataError(f"what it learned from ({digest[:16]}) is not in {run.lessons} any more: run the experiment again")
