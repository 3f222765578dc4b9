"""Renders the chat template of a model in a process of its own, which may be ended at any moment.

A template is a program by strangers: it may loop for ever or ask for all memory, inside a single operation even, where
no exception reaches it. So each request has a limit of processor time, at which the kernel ends the process, and the
process a limit of memory. `orchestration.inputs.templates` starts it and says what its end meant.

The environment is that of transformers' `apply_chat_template`, to the letter of what it renders, with one difference:
`strftime_now` tells the pinned date. Only the standard library and jinja2 are imported, so a start takes a tenth of a
second; `python -P` runs this file by its path and puts nothing beside it on the search path.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
from datetime import datetime
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT_OF_MEMORY = 71
"""Exit status of a process whose template wanted more memory than it may have."""


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


def render(template: Template, variables: dict[str, Any], *, at_most: int) -> str:
    """The text, of at most `at_most` characters.

    Raises:
        TemplateError: it is longer.
    """
    # The filter `random` draws the same each time.
    random.seed(0)
    pieces, length = [], 0
    for piece in template.generate(**variables):
        length += len(piece)
        if length > at_most:
            raise TemplateError(f"it writes more than {at_most:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    """Read the template and its limits from the first line, then render a line after another."""
    order = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"],) * 2)
    template: Template | None = None
    line: str | None = order["template"]
    while line:
        signal.setitimer(signal.ITIMER_PROF, order["seconds"])
        try:
            if template is None:
                made = environment(datetime.fromisoformat(order["date"]))
                template = made.from_string(line)
                answer: dict[str, Any] = {"variables": sorted(meta.find_undeclared_variables(made.parse(line)))}
            else:
                answer = {"text": render(template, json.loads(line), at_most=order["characters"])}
            text = json.dumps(answer)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything; the row says why
            text = json.dumps({"error": " ".join(str(error).split())[:300] or type(error).__name__})
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(text, flush=True)  # noqa: T201 - the answer
        line = sys.stdin.readline()


if __name__ == "__main__":
    main()
