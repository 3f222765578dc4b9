"""How the text of an answer is read: one reader a task, made once.

A reader takes hostile text: it is linear in the text's length, and what it cannot read is None, which counts as a miss.
An empty answer is read where empty answers mean something (`first_line` and `text`, `entities`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import re2

from configs import ConfigError
from configs.task import TaskConfig
from evaluation.tasks.entities import entity_reader
from evaluation.tasks.label_names import LabelNames
from evaluation.tasks.numbers import last_number

Reader = Callable[[str, Sequence[str]], tuple[str, ...] | None]
"""From the text of an answer and the tokens of its row (tagging alone has any) to what was predicted."""


def answer_reader(task: TaskConfig) -> Reader:
    """How the answers of a task are read.

    Raises:
        ConfigError: labels that cannot be told apart in an answer, or a pattern that RE2 does not take.
    """
    parser = task.read_by
    if parser.kind == "entities":
        return entity_reader(LabelNames.of(task))
    if parser.kind == "label":
        names = LabelNames.of(task)
        return lambda text, _tokens: _one(names.first_in(text))
    read = _pattern(task.name, parser.regex) if parser.regex is not None else PLAIN[parser.kind]
    if task.kind == "classification":
        names = LabelNames.of(task)
        return lambda text, _tokens: _one(names.named(read(text)))
    return lambda text, _tokens: _one(read(text))


def first_line(text: str) -> str:
    """The first line with anything in it."""
    return text.lstrip().partition("\n")[0].strip()


PLAIN: dict[str, Callable[[str], str | None]] = {"number": last_number, "first_line": first_line, "text": str.strip}


def _pattern(task: str, regex: str) -> Callable[[str], str | None]:
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(regex, options)
    except re2.error as error:
        raise ConfigError(
            f"task {task}: parser.regex={regex!r} is not a pattern of RE2 ({_said(error)}): "
            "see https://github.com/google/re2/wiki/Syntax"
        ) from error

    def read(text: str) -> str | None:
        match = pattern.search(text.encode(errors="replace").decode())
        if match is None:
            return None
        found = match[1] if pattern.groups else match[0]
        return None if found is None else found.strip()

    return read


def _said(error: re2.error) -> str:
    """RE2's own words, which come as bytes."""
    reason = error.args[0]
    return str(reason, "utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _one(value: str | None) -> tuple[str, ...] | None:
    return None if value is None else (value,)
