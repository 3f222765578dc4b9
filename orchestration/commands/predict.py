"""`distill predict`: what a student of a task says of sentences that are typed, or of the rows of a file.

Nothing of an experiment is needed but the student's directory: no engine, no cluster. A row that cannot be read keeps
its place, with the reason instead of an answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from configs import ConfigError, DataError
from configs.visible_text import visible

if TYPE_CHECKING:
    from configs.task import TaskConfig, TaskKind
    from student_train.models.predicting import Prediction, Predictor

ROWS_AT_ONCE = 1000
"""Rows that are read before the first of them is answered."""

ONNX = "model.onnx"
"""What `distill export` calls the file beside a student."""

PLAIN_FIELDS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("text",),
    "tagging": ("tokens",),
    "extractive_qa": ("question", "context"),
}
"""The fields of a row that are read where no task says which."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a student is given of one row, or the reason why there is nothing."""

    row: int
    parts: tuple[str, ...] = ()
    wrong: str | None = None


def add_predict(command: argparse.ArgumentParser) -> None:
    """Its arguments, and what it runs."""
    command.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a student of a task, or any such model"
    )
    command.add_argument("--text", action="append", default=[], help="a text to answer; may be repeated")
    command.add_argument("--file", metavar="FILE", help="rows (.jsonl, .csv, .parquet), lines (.txt), or - for stdin")
    command.add_argument("--task", type=Path, metavar="FILE", help="the task's YAML: which fields of a row are read")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the answers there, a JSON object a row")
    command.add_argument("--onnx", action="store_true", help=f"by {ONNX} in the model's directory (distill export)")
    command.set_defaults(command=predict)


def predict(arguments: argparse.Namespace) -> int:
    """Answer, and print or write the answers; the exit code is 1 where a row could not be read.

    Raises:
        ConfigError: the arguments do not go together, or a place cannot be read or written.
        DataError: no row can be read, or the student can make nothing of one.
        ModelError: the directory holds no model with a task head.
    """
    if bool(arguments.text) == (arguments.file is not None):
        raise ConfigError("name what to answer: either --text (it may be repeated) or --file, and not both")
    from configs import load_task_file

    task = None if arguments.task is None else load_task_file(arguments.task)
    if (
        arguments.out is not None
        and arguments.file is not None
        and arguments.out.resolve() == Path(arguments.file).resolve()
    ):
        raise ConfigError(f"--out {arguments.out} is the file that is read: name another one")
    empty = next((text for text in arguments.text if not text.strip()), None)
    if empty is not None:
        raise ConfigError(f"--text {empty!r} is empty: type something")
    require_directory(arguments.model)
    from student_train.models.predicting import Predictor

    model = Predictor(arguments.model, onnx=_onnx_file(arguments.model) if arguments.onnx else None)
    if task is not None and task.kind != model.kind:
        raise ConfigError(f"task {task.name} is {task.kind}, and {arguments.model} does {model.kind}: name another one")
    inputs: Iterable[Input]
    if arguments.file is None:
        inputs = [_typed(at, text, kind=model.kind, task=task) for at, text in enumerate(arguments.text)]
    else:
        inputs = _inputs(_rows(arguments.file), kind=model.kind, task=task)
    wrong = []
    answered = 0
    with _stream(arguments.out) as stream:
        for given, said in _answered(model, inputs):
            if said is None:
                wrong.append(given)
            answered += said is not None
            for line in _lines(given, said, typed=arguments.file is None and arguments.out is None):
                stream.write(f"{line}\n")
        stream.flush()
    if not wrong and not answered:
        raise DataError(f"--file {arguments.file} holds no rows: put some in it or name another file")
    if wrong:
        first = f"row {wrong[0].row}: {wrong[0].wrong}"
        reason = f"{len(wrong):,} of {len(wrong) + answered:,} rows cannot be read; the first, {visible(first)}"
        if not answered:
            raise DataError(f"{reason}: name the fields with --task, or correct the rows")
        from orchestration.outputs.console import Console

        Console(sys.stderr).warn(reason)
    return 1 if wrong else 0


def require_directory(place: Path) -> None:
    """Refuse a model that is not there."""
    if not place.is_dir():
        raise ConfigError(f"--model {place} is not a directory: name that of a student, e.g. runs/students/<digest>")


def _onnx_file(place: Path) -> Path:
    path = place / ONNX
    if not path.is_file():
        raise ConfigError(f"{path} is not there: write it with `distill export --model {place}`")
    return path


def _typed(at: int, text: str, *, kind: TaskKind, task: TaskConfig | None) -> Input:
    """A text from the command line; a task says into which field it goes."""
    from configs.task import SECOND

    if kind == "extractive_qa":
        raise ConfigError("--text is one text, and answers are looked for with a question and a context: use --file")
    if kind == "tagging":
        return Input(at, tuple(text.split()))
    if task is not None and SECOND in task.fields:
        raise ConfigError(f"--text is one text, and task {task.name} is about pairs: use --file")
    return Input(at, (text,))


def _rows(name: str) -> Iterator[Mapping[str, Any] | str | Exception]:
    """The rows of a file; a line of plain text as text, and what cannot be read as the reason."""
    if name != "-" and not name.lower().endswith(".txt"):
        from orchestration.inputs.rows import file_rows

        path = Path(name)
        if not path.exists():
            raise ConfigError(f"--file {name} is not there: correct the path, or use - for standard input")
        yield from (ValueError(row) if isinstance(row, str) else row for row in file_rows(path, key="--file"))
        return
    with _lines_of(name) as stream:
        json_rows: bool | None = None
        for line in (line.strip() for line in stream):
            if not line:
                continue
            if json_rows is None:
                json_rows = name == "-" and line.startswith("{")
            yield _json_row(line) if json_rows else line


@contextmanager
def _lines_of(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdin
        return
    try:
        with open(name, encoding="utf-8", errors="replace") as stream:
            yield stream
    except OSError as error:
        raise ConfigError(f"--file {name} cannot be read ({error.strerror}): correct the path") from error


def _json_row(line: str) -> Mapping[str, Any] | Exception:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"invalid JSON: {error}")
    return row if isinstance(row, dict) else ValueError("not a JSON object")


def _inputs(
    rows: Iterable[Mapping[str, Any] | str | Exception], *, kind: TaskKind, task: TaskConfig | None
) -> Iterator[Input]:
    for at, row in enumerate(rows):
        if isinstance(row, str):
            yield _typed(at, row, kind=kind, task=task)
        elif isinstance(row, Exception):
            yield Input(at, wrong=str(row))
        else:
            yield _plain(at, row, kind=kind) if task is None else _of_task(at, row, task=task)


def _plain(at: int, row: Mapping[str, Any], *, kind: TaskKind) -> Input:
    """A row whose fields are called as their roles are."""
    parts: list[str] = []
    for name in PLAIN_FIELDS[kind]:
        value = row.get(name)
        if kind == "tagging" and isinstance(value, list) and all(isinstance(word, str) for word in value):
            parts += value
        elif isinstance(value, str):
            parts += value.split() if kind == "tagging" else [value]
        else:
            there = ", ".join(map(str, row)) or "nothing"
            return Input(at, wrong=f"no text in the field {name!r}, only {visible(there, at_most=80)}")
    return _unless_empty(Input(at, tuple(parts)))


def _of_task(at: int, row: Mapping[str, Any], *, task: TaskConfig) -> Input:
    """A row as the task reads it."""
    from evaluation.tasks.examples import read_examples

    try:
        (example,) = read_examples(task, [(at, row)], labelled=False).usable
    except DataError as error:
        return Input(at, wrong=str(error).partition(f"row {at}: ")[2] or str(error))
    match task.kind:
        case "tagging":
            return _unless_empty(Input(at, example.tokens))
        case "extractive_qa":
            return _unless_empty(Input(at, (example.parts[0], example.context)))
        case _:
            return _unless_empty(Input(at, example.parts))


def _unless_empty(given: Input) -> Input:
    if given.parts and all(part.strip() for part in given.parts):
        return given
    return Input(given.row, wrong="an empty text")


def _answered(model: Predictor, inputs: Iterable[Input]) -> Iterator[tuple[Input, Prediction | None]]:
    """Every input in its order, with what the student says of it."""
    left = iter(inputs)
    while some := list(islice(left, ROWS_AT_ONCE)):
        said = iter(model.predict([each.parts for each in some if each.wrong is None]))
        for each in some:
            yield each, next(said) if each.wrong is None else None


@contextmanager
def _stream(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with open(out, "w", encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written ({error.strerror}): name another file") from error


def _lines(given: Input, said: Prediction | None, *, typed: bool) -> list[str]:
    from student_train.models.predicting import PredictedClass, PredictedTags

    if said is None:
        return [_json({"row": given.row, "error": given.wrong})]
    if isinstance(said, PredictedClass):
        if typed:
            others = ", ".join(f"{label} {probability:.3f}" for label, probability in said.likeliest[1:])
            return [f"{said.label} {said.probability:.3f}" + (f" (then {others})" if others else "")]
        likeliest = {label: round(probability, 6) for label, probability in said.likeliest}
        found = {"label": said.label, "probability": round(said.probability, 6), "likeliest": likeliest}
        return [_json({"row": given.row, **found, **({"cut": True} if said.cut else {})})]
    if isinstance(said, PredictedTags):
        if typed:
            return [f"{visible(word)}\t{tag}" for word, tag in zip(given.parts, said.tags, strict=True)] + [""]
        chances = [None if one is None else round(one, 6) for one in said.probabilities]
        return [_json({"row": given.row, "tokens": given.parts, "tags": said.tags, "probabilities": chances})]
    found = {"answer": said.text, "start": said.start, "end": said.end, "probability": round(said.probability, 6)}
    return [_json({"row": given.row, **found})]


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False)
