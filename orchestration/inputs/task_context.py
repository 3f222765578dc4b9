"""What a task's teacher is shown beside an example: rows around it in its own file, and a passage of the row.

Neighbours come from the rows of the file that an example stands in, whichever of them are examples; of train, dev or
test never from another split. Questions about one passage count as one row. Of a neighbour only its text is shown: no
label, tag or answer. A passage of question answering that holds the example's own passage gives what stands before and
after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from configs import ConfigError, DataError
from configs.schema import SplitConfig
from configs.task import SECOND, TaskConfig
from configs.teacher_context import Neighbours, TeacherContext
from evaluation.tasks.examples import Example
from evaluation.tasks.few_shot import WorkedExamples
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.surroundings import Piece, Surroundings, WideExample
from evaluation.tasks.templates import UnfitRowError, row_template
from orchestration.inputs.context_rows import Around, neighbours_of
from orchestration.inputs.rows import Row
from orchestration.inputs.tasks import LoadedTask, task_rows


class ContextFile:
    """The rows of one file in their order; `name` is what messages call it."""

    def __init__(
        self, rows: Iterable[tuple[int, Row | str]], *, task: TaskConfig, context: TeacherContext, name: str
    ) -> None:
        """Rows that cannot be read, or without a text, are nobody's neighbours.

        Raises:
            DataError: a row lacks the field that neighbours have in common.
        """
        self._task, self._context, self._name = task, context, name
        self._rows = {number: row for number, row in rows if not isinstance(row, str)}
        fields = _text_fields(task)
        self._pieces = {number: _piece(row, fields, words=task.kind == "tagging") for number, row in self._rows.items()}
        self._first = dict[int, int]()
        self._around: Mapping[int, Around] = {}
        if context.neighbours is not None:
            self._first = self._first_of_each(context.neighbours)
            told = {number: self._rows[number] for number in dict.fromkeys(self._first.values())}
            self._around = neighbours_of(told.items(), context.neighbours, split=name)

    def wide(self, examples: Iterable[Example]) -> tuple[WideExample, ...]:
        """Examples of this file with what stands around them.

        Raises:
            DataError: a row lacks the field of the passage.
        """
        return tuple(WideExample.of(example, self.around(example.row)) for example in examples)

    def around(self, number: int) -> Surroundings:
        """What stands around a row; it raises as `wide`."""
        found = self._around.get(self._first.get(number, number), Around())
        before, after = (tuple(self._pieces[each] for each in side) for side in (found.before, found.after))
        around, field = Surroundings(before, after), self._context.passage_field
        return around if field is None else self._with_passage(number, field, around)

    def _first_of_each(self, wanted: Neighbours) -> dict[int, int]:
        """The row that stands for each row that has a text: itself, or of questions about one passage the first."""
        seen: dict[tuple[str, Piece], int] = {}
        found = {}
        for number, piece in self._pieces.items():
            shared = "" if wanted.within is None else str(self._rows[number].get(wanted.within))
            if piece:
                own = self._task.kind != "extractive_qa"
                found[number] = number if own else seen.setdefault((shared, piece), number)
        return found

    def _with_passage(self, number: int, field: str, around: Surroundings) -> Surroundings:
        try:
            passage = _plain(row_field(self._rows[number], field))
        except UnfitRowError as error:
            raise DataError(
                f"teacher_context.passage_field={field}: row {number} of {self._name} has no such field: give every "
                "row one, or name another"
            ) from error
        if self._task.kind == "tagging":
            return replace(around, passage=tuple(passage.split()))
        own = "".join(self._pieces[number]) if self._task.kind == "extractive_qa" else ""
        if own and own in passage:
            # What the wider passage says on both sides stands nearest.
            before, _, after = map(_filled, passage.partition(own))
            return replace(
                around,
                before=(*around.before, *([before] if before else [])),
                after=(*([after] if after else []), *around.after),
            )
        return replace(around, passage=_filled(passage))


def task_in_context(task: LoadedTask, context: TeacherContext | None, *, folder: Path) -> LoadedTask:
    """The task with examples of all splits as wide as the context is, and with its worked examples.

    `folder` is that of the task's own file. The digest of the task stays what it is: it is over the examples alone.

    Raises:
        ConfigError: the task has worked examples of its own, or says nothing of how one is answered.
        DataError: a row lacks a field that the context names, or there are too few rows to work out.
    """
    if context is None:
        return task
    shots = task.shots if context.examples is None else _worked(task, context)
    task = replace(task, context=context, shots=shots)
    if not shows_text(context):
        return task

    def wide(split: Literal["train", "dev", "test"]) -> tuple[Example, ...]:
        source: SplitConfig | None = getattr(task.config.data, split)
        if source is None:
            return ()
        rows = task_rows(source, split=split, folder=folder)
        return ContextFile(rows, task=task.config, context=context, name=split).wide(getattr(task, split))

    return replace(task, train=wide("train"), dev=wide("dev"), test=wide("test"))


def rows_in_context(
    rows: Iterable[tuple[int, Row | str]], *, task: LoadedTask, name: str
) -> Iterator[tuple[Row | str, Surroundings | None]]:
    """The rows of a file with what stands around each; None where the context shows no text of rows.

    Raises:
        DataError: a row lacks a field that the context names.
    """
    context = task.context
    if context is None or not shows_text(context):
        yield from ((row, None) for _, row in rows)
        return
    numbered = list(rows)
    file = ContextFile(numbered, task=task.config, context=context, name=name)
    yield from ((row, None if isinstance(row, str) else file.around(number)) for number, row in numbered)


def shows_text(context: TeacherContext | None) -> bool:
    """Whether a context has texts that differ from row to row."""
    return context is not None and (context.neighbours is not None or context.passage_field is not None)


def require_room_for_context(task: TaskConfig, context: TeacherContext | None, *, answers: str) -> None:
    """Refuse a context in a task whose pairs leave a teacher with a head no place for it.

    Raises:
        ConfigError: naming both.
    """
    if context is not None and answers == "head" and task.kind == "classification" and SECOND in task.fields:
        raise ConfigError(
            f"teacher_context is the second text that a teacher with a head reads, and task {task.name} gives it pairs "
            f"(fields.{SECOND}={task.fields[SECOND]}): set teacher.answers: labels or text, or remove teacher_context"
        )


def _worked(task: LoadedTask, context: TeacherContext) -> WorkedExamples:
    """The worked examples of a context: drawn as those of a task are."""
    wanted, own = context.examples, task.config
    assert wanted is not None
    if own.few_shot:
        raise ConfigError(
            f"teacher_context.examples.count={wanted.count}, and task {own.name} has few_shot={own.few_shot}: remove "
            "one of them"
        )
    if own.answer is None:
        raise ConfigError(
            f"teacher_context.examples.count={wanted.count} needs to know how a row of task {own.name} is answered: "
            "set answer in the task, a template"
        )
    shown = own.model_copy(update={"few_shot": wanted.count, "few_shot_seed": wanted.seed})
    try:
        return WorkedExamples(shown, task.train)
    except DataError as error:
        raise DataError(f"teacher_context.examples.count={wanted.count}: {error}") from error


def _text_fields(task: TaskConfig) -> tuple[str, ...]:
    """The fields of a row that are text, and say nothing of what is gold."""
    if task.kind in ("tagging", "extractive_qa"):
        return (task.fields["tokens" if task.kind == "tagging" else "context"],)
    gold = {field for role, field in task.fields.items() if role != SECOND}
    read = row_template(task.template, task=task.name, key="template").reads
    return tuple(name for name in read if name not in {"labels", "row", *gold})


def _piece(row: Row, fields: Sequence[str], *, words: bool) -> Piece:
    """The text of a row; nothing where it has none."""
    found = []
    for name in fields:
        try:
            found.append(row_field(row, name))
        except UnfitRowError:
            continue  # it says less than others
    if not words:
        return _filled(" ".join(map(_plain, found)))
    given = found[0] if found else ()
    if isinstance(given, str):
        return tuple(given.split())
    return tuple(map(str, given)) if isinstance(given, Sequence) else ()


def _filled(text: str) -> Piece:
    return (text.strip(),) if text.strip() else ()


def _plain(value: object) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
