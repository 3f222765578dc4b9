"""Renders the chat template of a model in a process of its own, which may be ended at any moment.

A template is a program by strangers: it may loop for ever or ask for all memory, inside a single operation even, where
no exception reaches it. So each request has a limit of processor time, at which the kernel ends the process, and the
process a limit of memory. `orchestration.inputs.templates` starts it and says what its end meant.

The environment is that of transformers' `apply_chat_template`, to the letter of what it renders, with one difference:
`strftime_now` tells the pinned date. Only the standard library and jinja2 are imported, so a start takes a tenth of a
second; `python -P` runs this file by its path and puts nothing beside it on the search path.

Rows come many to a line and answers go out many to a line, because a line each costs as much as rendering it. What was
rendered goes out before the next row is begun, `HELD_BACK_S` after the answers before it at the latest: whoever reads
knows all but the last moment of a process that is ended.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT_OF_MEMORY = 71
"""Exit status of a process whose template wanted more memory than it may have."""

HELD_BACK_S = 0.05
"""How long an answer may wait for others to go out with it."""

CHANCE = ("random", "lipsum")
"""Names by which a template draws: of one without them nothing is drawn."""


class GenerationBlock(Extension):
    """`{% generation %}` marks what the model itself writes, for whoever wants a mask; here only its inside counts."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment(today: datetime) -> ImmutableSandboxedEnvironment:
    """What a template can use."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return today.strftime(form)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates call it by position
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,  # noqa: FBT001, FBT002
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return made


def render(template: Template, variables: dict[str, Any], *, at_most: int, draws: bool = True) -> str:
    """The text, of at most `at_most` characters; `draws` unless the template has nothing of `CHANCE`.

    Raises:
        TemplateError: it is longer.
    """
    if draws:
        # The filter `random` draws the same each time.
        random.seed(0)
    pieces, length = [], 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > at_most:
            raise TemplateError(f"it writes more than {at_most:,} characters")
        pieces.append(piece)
    return "".join(pieces)


class Renderer:
    """The template of an order, with its limits; `shared` is what all rows of a line are given."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._draws = any(name in order["template"] for name in CHANCE)
        self._template: Template | None = None
        self._shared: dict[str, Any] = {}

    def compile(self) -> dict[str, Any]:
        """Make the template; the answer names its variables."""
        made, text = environment(datetime.fromisoformat(self._order["date"])), self._order["template"]
        self._template = made.from_string(text)
        return {"variables": sorted(meta.find_undeclared_variables(made.parse(text)))}

    def rows(self, line: str) -> list[dict[str, Any]]:
        """The variables of each row of a line."""
        try:
            read = json.loads(line)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        self._shared = read["shared"]
        rows: list[dict[str, Any]] = read["rows"]
        return rows

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """The text of a row."""
        assert self._template is not None
        at_most = self._order["characters"]
        return {"text": render(self._template, {**self._shared, **row}, at_most=at_most, draws=self._draws)}

    def within_limits(self, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is made, or why it is not; a template that takes too long over it ends here."""
        signal.setitimer(signal.ITIMER_PROF, self._order["seconds"])
        try:
            return made()
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything; the row says why
            return {"error": " ".join(str(error).split())[:300] or type(error).__name__}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Read the template and its limits from the first line, then render a line of rows after another."""
    order = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"],) * 2)
    renderer = Renderer(order)
    _write([renderer.within_limits(renderer.compile)])
    while line := sys.stdin.readline():
        wrote, held = time.monotonic(), list[dict[str, Any]]()
        for row in renderer.rows(line):
            if held and time.monotonic() - wrote > HELD_BACK_S:
                _write(held)
                wrote, held = time.monotonic(), []
            held.append(renderer.within_limits(partial(renderer.answer, row)))
        _write(held)


def _write(answers: list[dict[str, Any]]) -> None:
    print(json.dumps(answers), flush=True)  # noqa: T201 - the answers


if __name__ == "__main__":
    main()
