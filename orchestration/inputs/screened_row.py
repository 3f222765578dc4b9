"""One row of data once it was screened: every text in it, in the form that its kind of task needs.

Labels and tags are nobody's secrets, and stay. A word of tagging stays one word, so tags stay beside their words.
The answers of a passage are what the passage says once it is redacted; one that begins or ends within a private value
stands nowhere any more, and a row that loses all its answers in this way is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.task import TaskConfig
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs.placeholders import Placeholders
from orchestration.inputs.private_spans import PrivateSpan
from orchestration.inputs.rows import Row
from orchestration.inputs.screen import Look, Screen

CUT_OFF = "every answer begins or ends within what is private"


@dataclass(slots=True)
class RowLooks:
    """What is found in the texts of one row; changed where the experiment redacts."""

    screen: Screen
    placeholders: Placeholders
    looks: list[Look] = field(default_factory=list)

    def text(self, text: str) -> str:
        """A text as it is used."""
        return self.placeholders.put(text, self.spans(text))

    def words(self, words: Sequence[str]) -> list[str]:
        """Words that belong together as they are used, as many as there were."""
        return self.placeholders.put_in_words(words, self.spans(" ".join(words)))

    def spans(self, text: str) -> Sequence[PrivateSpan]:
        """What is to be redacted in a text, which counts as looked at."""
        look = self.screen.look(text)
        self.looks.append(look)
        return look.spans if self.screen.private == "redact" else ()


RowForm = Callable[[Row, RowLooks], Row]
"""Makes of a row what is used of it.

Raises:
    UnfitRowError: it cannot be used any more.
"""

Change = Callable[[Any], Any]


def every_text(row: Row, looks: RowLooks) -> Row:
    """A row with every text in it looked at; the names of fields stay."""
    return {name: _mapped(value, name, {}, looks.text) for name, value in row.items()}


def form_of_task(task: TaskConfig) -> RowForm:
    """How the rows of a task are looked at; one without a label, or with a field of another kind, as it is there."""
    match task.kind:
        case "classification":
            return _with_label(task.fields["label"])
        case "tagging":
            return _with_tags(task.fields["tokens"], task.fields["tags"])
        case "extractive_qa":
            return _with_passage(task.fields["context"], task.fields["answers"])
        case _:
            return every_text


def _with_label(label: str) -> RowForm:
    def form(row: Row, looks: RowLooks) -> Row:
        return _formed(row, {label: _as_it_is}, looks)

    return form


def _with_tags(tokens: str, tags: str) -> RowForm:
    def form(row: Row, looks: RowLooks) -> Row:
        def words(value: Any) -> Any:
            given = value.split() if isinstance(value, str) else value
            if not isinstance(given, list | tuple) or not all(isinstance(word, str) for word in given):
                return value  # whoever reads it says what is wrong
            return looks.words(given)

        return _formed(row, {tokens: words, tags: _as_it_is}, looks)

    return form


def _with_passage(context: str, answers: str) -> RowForm:
    def form(row: Row, looks: RowLooks) -> Row:
        passage = _passage(row, context, looks)
        if passage is None:
            return every_text(row, looks)
        special = {context: lambda _: passage.redacted, answers: lambda value: passage.answers(value, looks)}
        return _formed(row, special, looks)

    return form


def _passage(row: Row, context: str, looks: RowLooks) -> _Passage | None:
    try:
        text = row_field(row, context)
    except UnfitRowError:
        return None
    if not isinstance(text, str):
        return None
    spans = looks.spans(text)
    return _Passage(text, tuple(spans), looks.placeholders.put(text, spans), looks.placeholders)


@dataclass(frozen=True, slots=True)
class _Passage:
    """A passage, what is private in it, and what it says once that is redacted."""

    text: str
    spans: tuple[PrivateSpan, ...]
    redacted: str
    placeholders: Placeholders

    def answers(self, value: Any, looks: RowLooks) -> Any:
        """Answers in the form that they had: a text, a list, or `{text: ...}`.

        Raises:
            UnfitRowError: all of them are cut off.
        """
        if isinstance(value, Mapping):
            # Where an answer starts in the passage is another place now, and nobody reads it.
            others = {name: each for name, each in value.items() if name not in ("text", "answer_start")}
            return {**others, "text": self.answers(value.get("text"), looks)}
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
            return value  # whoever reads it says what is wrong
        found = [self._answer(each, looks) for each in given]
        kept = [each for each in found if each is not None]
        if given and not kept:
            raise UnfitRowError(CUT_OFF)
        return kept[0] if isinstance(value, str) else kept

    def _answer(self, answer: str, looks: RowLooks) -> str | None:
        """An answer as the redacted passage has it where it is learned, its first place; None where it is cut off."""
        start = self.text.find(answer) if answer else -1
        if start < 0:
            return looks.text(answer)
        end = start + len(answer)
        inside = [span for span in self.spans if span.start < end and start < span.end]
        if any(span.start < start or end < span.end for span in inside):
            return None
        before = [span for span in self.spans if span.end <= start]
        moved = len(self.placeholders.put(self.text[:start], before))
        shifted = [PrivateSpan(span.start - start, span.end - start, span.kind) for span in inside]
        said = self.placeholders.put(answer, shifted)
        return said if self.redacted.find(said) == moved else None


def _formed(row: Row, special: Mapping[str, Change], looks: RowLooks) -> Row:
    """A row with the fields of these names, or paths of names with dots between, changed in a way of their own."""
    return {name: _mapped(value, name, special, looks.text) for name, value in row.items()}


def _as_it_is(value: Any) -> Any:
    return value


def _mapped(value: Any, path: str, special: Mapping[str, Change], change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed."""
    if path in special:
        return special[path](value)
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(each, f"{path}.{name}", special, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, f"{path}.{at}", special, change) for at, each in enumerate(value)]
    return value
