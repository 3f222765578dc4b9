"""What the import hook of `conftest.py` puts around the functions of the checked packages that take or give arrays.

The type checker is beartype, taught to let `Self` pass: the hook decorates methods one by one, and beartype knows what
`Self` means only when it decorates the whole class.

Functions without an array stay as they are: mypy knows their types, and to check each of their calls took half of the
processor time of the tests of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import isclass
from typing import Annotated, Any, Self, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, FrozenDict, beartype
from beartype.vale import Is

_ANYTHING = Annotated[object, Is[lambda _: True]]
"""Accepts every value. Plain `object` would do, but not inside `Self | None`, where beartype insists on a real check."""

checked: Any = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: _ANYTHING})))
"""Decorates one function."""

_jaxtyped: Callable[..., Any] = jaxtyping.jaxtyped


def install(packages: Sequence[str]) -> None:
    """Check from now on every array that enters or leaves a function of these packages, which are not imported yet."""
    # The hook decorates every function there is with `jaxtyping.jaxtyped`, by that name.
    jaxtyping.jaxtyped = with_checked_arrays
    jaxtyping.install_import_hook(packages, "shape_checks.checked")


def with_checked_arrays(what: Any = None, *, typechecker: Any = checked) -> Any:
    """Decorate a function or a dataclass: its arrays are checked if it has any, else it is left as it is."""
    if what is None:
        return lambda found: with_checked_arrays(found, typechecker=typechecker)
    if isclass(what):
        return (
            _jaxtyped(what, typechecker=typechecker) if is_dataclass(what) and _names_an_array(what.__init__) else what
        )
    return _jaxtyped(what, typechecker=typechecker) if _names_an_array(what) else what


def _names_an_array(function: Any) -> bool:
    # What `object` itself starts a value with has none.
    hints: Mapping[str, object] = getattr(function, "__annotations__", {})
    return any(_holds_array(_resolved(hint, function.__globals__)) for hint in hints.values())


def _resolved(hint: object, names: dict[str, Any]) -> object:
    """What an annotation says; Any where it names what is not there (yet), which jaxtyping lets pass too."""

    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 - whatever an annotation that nobody evaluates otherwise may raise
        return Any


def _holds_array(hint: object) -> bool:
    if isinstance(hint, list | tuple):
        return any(map(_holds_array, hint))
    return (isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(_holds_array, get_args(hint)))
