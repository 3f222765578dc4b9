"""From rows to examples: what is asked, what is right, and why a row cannot be used.

Rows come from anywhere. One that lacks a field, holds a label outside the list or no answer costs that row, and the
reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs import DataError
from configs.task import PAIR, SECOND, TaskConfig
from evaluation.tasks.parsing import answer_reader
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.spans import Span, spans_of
from evaluation.tasks.templates import RowTemplate, UnfitRowError, row_template

Row = Mapping[str, Any]

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What stands in place of a text in questions without content (Zhao et al. 2021, arXiv 2102.09690, section 5)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row that can be asked.

    `text` is what the row itself says, without the words of the template: the fields that the template reads. `parts`
    are the one or two texts of it that a model with a head reads. `labelled` says that what is gold is known. `worked`
    is how it is answered as a worked example ("" unless that was asked for), `gold` as in `TaskExample`. `context` is
    where the answer of question answering stands ("" for other kinds).
    """

    row: int
    text: str
    question: str
    worked: str
    gold: tuple[str, ...]
    tokens: tuple[str, ...]
    context: str
    pair: str | None
    parts: tuple[str, ...]
    labelled: bool


@dataclass(frozen=True, slots=True)
class Examples:
    """The rows of a split that can be used, and a line for every one that cannot."""

    usable: tuple[Example, ...]
    set_aside: tuple[str, ...]


def read_examples(
    task: TaskConfig, rows: Iterable[tuple[int, Row | str]], *, worked: bool = False, labelled: bool = True
) -> Examples:
    """The examples of numbered rows; a text in place of a row is the reason why it could not be read.

    `worked` also fills the template of the answer, for worked examples. Of rows that are not `labelled` nothing gold is
    read.

    Raises:
        ConfigError: a template or the parser of the task cannot work.
        DataError: there are rows, and none can be used.
    """
    reader = _RowReader(task, worked=worked, labelled=labelled)
    usable, set_aside = [], []
    for number, row in rows:
        try:
            usable.append(reader.example(number, row))
        except UnfitRowError as error:
            set_aside.append(f"row {number}: {error}")
    if set_aside and not usable:
        raise DataError(f"task {task.name}: none of {len(set_aside)} rows can be used; {set_aside[0]}")
    return Examples(tuple(usable), tuple(set_aside))


def content_free_examples(task: TaskConfig) -> tuple[Example, ...]:
    """The task's questions about nothing: each of `CONTENT_FREE` stands in every field that its template reads.

    Raises:
        ConfigError: the template cannot work.
        UnfitRowError: it cannot be filled so.
    """
    question = row_template(task.template, task=task.name, key="template")
    found = []
    for content in CONTENT_FREE:
        row = dict.fromkeys(question.reads, content)
        asked = {**row, "row": row, "labels": list(task.verbalisers.values())}
        found.append(
            Example(
                row=-1, text=content, question=question.fill(asked), worked="", gold=(), tokens=(), context="",
                pair=None, parts=(content,), labelled=False,
            )
        )  # fmt: skip
    return tuple(found)


class _RowReader:
    """What is made once for all rows of a task."""

    def __init__(self, task: TaskConfig, *, worked: bool, labelled: bool) -> None:
        self._task, self._labelled = task, labelled
        self._question = row_template(task.template, task=task.name, key="template")
        self._worked: RowTemplate | None = None
        if worked and task.answer is not None:
            self._worked = row_template(task.answer, task=task.name, key="answer")
        self._read = answer_reader(task)

    def example(self, number: int, row: Row | str) -> Example:
        """Read one row.

        Raises:
            UnfitRowError: it cannot be used.
        """
        if isinstance(row, str):
            raise UnfitRowError(row)
        tokens = _texts(row, self._task.fields["tokens"]) if self._task.kind == "tagging" else ()
        gold = self._gold(row, tokens) if self._labelled else ()
        asked = {"row": row, "labels": list(self._task.verbalisers.values())} | dict(row)
        # Pairs are judged by their labels, so texts without one need not say whether they are in a pair.
        pair = row_field(row, self._task.fields[PAIR]) if PAIR in self._task.fields and self._labelled else None
        return Example(
            row=number,
            text=_own_words(row, self._question.reads),
            question=self._question.fill(asked),
            worked="" if self._worked is None else self._worked.fill(self._answers(gold, tokens) | asked),
            gold=gold,
            tokens=tokens,
            context=_text(row, self._task.fields["context"]) if self._task.kind == "extractive_qa" else "",
            pair=None if pair is None else str(pair),
            parts=self._parts(row),
            labelled=self._labelled,
        )

    def _parts(self, row: Row) -> tuple[str, ...]:
        """One text, or the two of a pair: what comes second is read apart from all else."""
        second = self._task.fields.get("context" if self._task.kind == "extractive_qa" else SECOND)
        if second is None:
            return (_own_words(row, self._question.reads),)
        first = [name for name in self._question.reads if name != second.partition(".")[0]]
        return _own_words(row, first), _text(row, second)

    def _gold(self, row: Row, tokens: tuple[str, ...]) -> tuple[str, ...]:
        fields = self._task.fields
        match self._task.kind:
            case "classification":
                return (self._label(row_field(row, fields["label"])),)
            case "tagging":
                return tuple(map(str, self._entities(_texts(row, fields["tags"]), tokens)))
            case "extractive_qa":
                _text(row, fields["context"])
                return _accepted(row_field(row, fields["answers"])) or ("",)
            case "generation":
                references = _accepted(row_field(row, fields["references"]))
                if not references:
                    raise UnfitRowError(f"{fields['references']} holds no reference with anything in it")
                return references
            case "exact_match":
                return self._final(_text(row, fields["answer"]))

    def _label(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UnfitRowError(f"{self._task.fields['label']} holds {_kind(value)} where a label is due")
        given, labels = str(value), list(self._task.verbalisers)
        if self._task.label_is_index:
            return _label_at(given, labels)
        if given not in labels:
            raise UnfitRowError(f"label {given[:80]!r} is not among labels{self._cure(given, labels)}")
        return given

    def _cure(self, given: str, labels: Sequence[str]) -> str:
        """What to do where the rows hold numbers and the labels are words."""
        if not given.isdecimal() or any(map(str.isdecimal, labels)):
            return ""
        return (
            f" ({', '.join(labels)[:80]}): where {self._task.fields['label']} holds places in labels, from 0, set "
            'label_is_index: true; else name the numbers themselves, labels: {"0": ..., "1": ...}'
        )

    def _entities(self, tags: Sequence[str], tokens: Sequence[str]) -> tuple[Span, ...]:
        if len(tags) != len(tokens) or not tokens:
            raise UnfitRowError(f"{len(tags)} tags for {len(tokens)} tokens")
        try:
            spans = spans_of(tags)
        except ValueError as error:
            raise UnfitRowError(str(error)) from error
        strange = next((span.type for span in spans if span.type not in self._task.verbalisers), None)
        if strange is not None:
            raise UnfitRowError(f"type {strange[:80]!r} is not among labels")
        return spans

    def _final(self, text: str) -> tuple[str, ...]:
        """The answer that a worked-out solution comes to, read as a model's answer is."""
        read = self._read(text, ())
        if read is None and self._task.read_by.kind == "number":
            raise UnfitRowError(f"{self._task.fields['answer']} holds no number")
        return read or (text.strip(),)

    def _answers(self, gold: tuple[str, ...], tokens: tuple[str, ...]) -> dict[str, Any]:
        """What the template of the answer may read beside the fields of the row."""
        known: dict[str, Any] = {"gold": list(gold)}
        words = self._task.verbalisers
        if self._task.kind == "classification":
            known["words"] = words[gold[0]]
        if self._task.kind == "tagging":
            spans = (text.split(" ", 2) for text in gold)
            known["entities"] = [
                {"type": words[kind], "words": " ".join(tokens[int(start) : int(end)])} for start, end, kind in spans
            ]
        return known


def _label_at(given: str, labels: Sequence[str]) -> str:
    if not given.isascii() or not given.isdecimal() or int(given[:9]) >= len(labels):
        raise UnfitRowError(f"label {given[:80]!r} is not a place in labels: 0 to {len(labels) - 1} (label_is_index)")
    return labels[int(given)]


def _text(row: Row, name: str) -> str:
    """A field with something in it, as text."""
    value = row_field(row, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnfitRowError(f"{name} holds {_kind(value)} where text is due")
    if not str(value).strip():
        raise UnfitRowError(f"{name} is empty")
    return str(value)


def _texts(row: Row, name: str) -> tuple[str, ...]:
    """A field that lists texts, or that is one with spaces between."""
    value = row_field(row, name)
    texts = value.split() if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UnfitRowError(f"{name} holds {_kind(value)} where a list of texts is due")
    return tuple(texts)


def _accepted(value: object) -> tuple[str, ...]:
    """Answers with anything in them: one, a list, or `{text: [...]}` as SQuAD has it."""
    if isinstance(value, Mapping):
        value = value.get("text")
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, Sequence) or not all(isinstance(answer, str) for answer in answers):
        raise UnfitRowError(f"answers are {_kind(value)}: give a text, or a list of texts")
    return tuple(answer for answer in answers if answer.strip())


def _own_words(row: Row, names: Sequence[str]) -> str:
    try:
        return " ".join(_plain(row[name]) for name in names if name in row)
    except RecursionError as error:
        raise UnfitRowError("a field holds lists in lists without end") from error


def _plain(value: object) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
