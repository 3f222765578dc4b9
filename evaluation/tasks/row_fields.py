"""A field of a row by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.tasks.templates import UnfitRowError

Row = Mapping[str, Any]


def row_field(row: Row, name: str) -> object:
    """A field by its name, or by a path of names and numbers with dots between (`instances.0.output`).

    Raises:
        UnfitRowError: there is none.
    """
    if name in row:
        return row[name]
    value: object = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise UnfitRowError(f"field {name} is missing")
    return value
