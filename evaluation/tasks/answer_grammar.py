"""The grammar that the answers of a task obey, so that an engine writes none that cannot be read.

It is built from what the task's own parser reads (`parsing`, `entities`), and held against that parser: labels stand as
their words, entities as lines `TYPE: words` with words of the row, the answer to a question as it stands in one line of
its passage. A model that ends its answers with the line, as those do that never learned to chat, may do so: else it
would go on for as long as the passage does.

Grammars are written in the Lark of llguidance, whose `substring_chunks` are runs of such chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence

from configs import ConfigError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example
from evaluation.tasks.parsing import answer_reader

GrammarOf = Callable[[Example], str]
"""The grammar of the answer to an example."""

_PIECES = re.compile(r"\w+|\W")
_ROW = 'ROW: /(.|\\n)+/ & %regex {{ "substring_chunks": {chunks} }}\n'


def answer_grammar(task: TaskConfig) -> GrammarOf:
    """How the answers of a task are written.

    Raises:
        ConfigError: its parser reads answers of a form that no grammar is made of.
    """
    # Behind a plain text a word begins with a space, behind the opening of an answer in a chat it does not.
    space = "" if task.chat else "SPACE? "
    given = "" if task.chat else 'SPACE: " "\n'
    match task.kind:
        case "classification":
            whole = _labels(task, space, given)
            return lambda example: whole
        case "tagging":
            tail = _entities(task, given)
            return lambda example: _lines(len(example.tokens), space) + tail + _row(example.tokens)
        case "extractive_qa" if task.read_by.kind in ("first_line", "text"):
            return lambda example: _passage(example.context, space, given)
        case _:
            raise _unheld(task)


def _labels(task: TaskConfig, space: str, given: str) -> str:
    read = answer_reader(task)
    for label, words in task.verbalisers.items():
        if read(words, ()) != (label,):
            raise _unheld(task)
    return f"start: {space}LABEL\nLABEL: {_any(task.verbalisers.values())}\n{given}"


def _lines(most: int, space: str) -> str:
    """At most as many lines as the row has tokens: no row holds more entities, and a model that babbles is stopped."""
    more = f" (NEWLINE line){{0,{most - 1}}}" if most > 1 else ""  # llguidance takes {0,0} for something else
    return f"start: {space}(NONE | line{more}) NEWLINE?\n"


def _entities(task: TaskConfig, given: str) -> str:
    read = answer_reader(task)
    for label, words in task.verbalisers.items():
        if read(f"{words}: token", ("token",)) != (f"0 1 {label}",):
            raise _unheld(task)
    return f'NONE: "none"\nline: TYPE ":" ROW\nNEWLINE: "\\n"\nTYPE: {_any(task.verbalisers.values())}\n{given}'


def _row(tokens: Sequence[str]) -> str:
    """Words of a row as they follow each other, each behind a space."""
    return _ROW.format(chunks=_json([f" {' '.join(token.split())}" for token in tokens if token.strip()]))


def _passage(context: str, space: str, given: str) -> str:
    """Words of one line of a passage as they follow each other, not all of them blank."""
    lines = [_PIECES.findall(line) for line in context.splitlines() if line.strip()]
    named = {f"LINE_{at}": _json(pieces) for at, pieces in enumerate(lines)}
    rules = "".join(f'{name}: %regex {{ "substring_chunks": {pieces} }}\n' for name, pieces in named.items())
    return f'start: {space}ANSWER NEWLINE?\nNEWLINE: "\\n"\nANSWER: /.*\\S.*/ & ({" | ".join(named)})\n{given}{rules}'


def _any(words: Iterable[str]) -> str:
    return " | ".join(_json(word) for word in words)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unheld(task: TaskConfig) -> ConfigError:
    return ConfigError(
        f"task {task.name} reads answers by parser.kind={task.read_by.kind}, a form that no grammar is made of: set "
        "teacher.constrained: false, and the teacher writes what it likes"
    )
