"""Templates of a task: Jinja over the fields of a row, in a sandbox that cannot run for long.

The template is the user's, the row may be anybody's: its text is put in and never executed. So that no template runs
away either, it may loop, but not inside a loop, over what a row holds (there is no `range`), call the plain methods of
text alone, and neither define macros nor multiply text; what it writes is bounded. A field that the row lacks is an
error and not an empty text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from configs import ConfigError
from configs.visible_text import first_line

MOST_CHARACTERS = 1_000_000
"""What a template may write for one row."""

_OF_TEXT = (
    "capitalize count endswith find join lower lstrip removeprefix removesuffix replace rstrip split splitlines "
    "startswith strip title upper"
)
_OF_MAPPINGS = "get items keys values"

METHODS: Mapping[type, frozenset[str]] = {str: frozenset(_OF_TEXT.split()), dict: frozenset(_OF_MAPPINGS.split())}
"""What a template may call."""

_FILTERS = (
    "abs capitalize count d default dictsort first float int items join last length list lower map max min reject "
    "rejectattr replace reverse round select selectattr sort string sum title tojson trim truncate unique upper "
    "wordcount"
)

FILTERS = frozenset(_FILTERS.split())
"""The filters of Jinja that are left: none draws at random, and none makes much of little."""

_REFUSED = (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)


class UnfitRowError(ValueError):
    """A row cannot be used, for the reason that it says."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
        self.globals.clear()
        self.filters = {name: made for name, made in self.filters.items() if name in FILTERS}

    def is_safe_callable(self, obj: Any) -> bool:
        """The plain methods of text and mappings; what is undefined says so itself."""
        if isinstance(obj, Undefined):
            return True
        owner = type(getattr(obj, "__self__", None))
        return getattr(obj, "__name__", "") in METHODS.get(owner, frozenset())

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic with numbers of usual size."""
        if operator == "**" or not all(isinstance(side, int | float) for side in (left, right)):
            raise SecurityError(f"{operator} is for numbers alone, and not for powers")
        return super().call_binop(context, operator, left, right)


@dataclass(frozen=True, slots=True, eq=False)
class RowTemplate:
    """A template and the names that it reads."""

    key: str
    reads: tuple[str, ...]
    template: Template

    def fill(self, values: Mapping[str, Any]) -> str:
        """What it makes of a row.

        Raises:
            UnfitRowError: the row lacks a field, holds another kind of value, or there is too much of it.
        """
        written: list[str] = []
        length = 0
        try:
            for piece in self.template.generate(values):
                length += len(piece)
                if length > MOST_CHARACTERS:
                    raise UnfitRowError(f"{self.key} writes more than {MOST_CHARACTERS:,} characters")
                written.append(piece)
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError) as error:
            raise UnfitRowError(f"{self.key}: {first_line(error)}") from error
        return "".join(written)


def row_template(source: str, *, task: str, key: str) -> RowTemplate:
    """Compile a template; `key` is where the task's file has it.

    Raises:
        ConfigError: it is not Jinja, or does what a template of a task may not.
    """
    environment = _Environment()
    try:
        tree = environment.parse(source)
        compiled = environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        raise ConfigError(f"task {task}: {key} is not a template of Jinja ({first_line(error)}): correct it") from error
    if next(tree.find_all(_REFUSED), None) is not None:
        raise ConfigError(f"task {task}: {key} defines or includes something: write out what a row becomes")
    if any(_inner_loops(loop) for loop in tree.find_all(nodes.For)):
        raise ConfigError(f"task {task}: {key} loops inside a loop, or through itself: a template may loop once")
    return RowTemplate(key, tuple(sorted(meta.find_undeclared_variables(tree))), compiled)


def _inner_loops(loop: nodes.For) -> bool:
    return loop.recursive or any(True for _ in loop.find_all(nodes.For))
