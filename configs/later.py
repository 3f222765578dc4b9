"""Names of a package that are imported when they are first asked for.

So a process that needs one module of a package does not load what all the others need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def names_found_later(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of `package`: `modules` says below it in which module each name is defined."""

    def found(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return found
