"""From a frozen dataclass to JSON and back: every field is there and of its type, or it is refused.

JSON has no word for a float that is not a finite number: NaN, which stands for what could not be measured, is kept as
null, and an infinite one as the text "inf" or "-inf".

pydantic would do, but it takes no text with half a surrogate pair, which data and answers of models may hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Value = TypeVar("Value")

INFINITE = {"inf": math.inf, "-inf": -math.inf}


def to_fields(value: Any) -> Any:
    """A dataclass, and everything in it, as JSON can say it; `from_fields` makes the same of it again."""
    if is_dataclass(value):
        return {field.name: to_fields(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_fields(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_fields(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def from_fields(kind: type[Value], raw: Mapping[str, object]) -> Value:
    """The dataclass `kind` of these fields, as `to_fields` and JSON left them; nothing is bent to fit.

    Texts, one of several named texts, numbers, tuples, mappings from texts, dataclasses and None beside one of them may
    stand in it.

    Raises:
        ValueError: a field is missing, unknown or of another type; which one, in words.
    """
    return _dataclass(kind, raw, where="")  # type: ignore[no-any-return]  # it is one of `kind`


def _dataclass(kind: Any, raw: object, *, where: str) -> Any:
    types = _types(kind)
    wanted = types.keys()
    if not isinstance(raw, Mapping) or raw.keys() != wanted:
        there = set(raw) if isinstance(raw, Mapping) else set[object]()
        odd = sorted(map(repr, there ^ wanted))
        raise ValueError(f"{where or kind.__name__}: {odd[0]} is missing or unknown")
    return kind(**{name: _value(types[name], raw[name], where=f"{where}.{name}".lstrip(".")) for name in wanted})


@cache
def _types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(kind: Any, raw: object, *, where: str) -> Any:
    if get_origin(kind) is UnionType:
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
        if raw is None:
            return None
    if is_dataclass(kind):
        return _dataclass(kind, raw, where=where)
    if get_origin(kind) is Literal and isinstance(raw, str) and raw in get_args(kind):
        return raw
    if get_origin(kind) is tuple and isinstance(raw, list):
        inner = get_args(kind)
        kinds = [inner[0]] * len(raw) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(raw):
            pairs = enumerate(zip(kinds, raw, strict=True))
            return tuple(_value(each, item, where=f"{where}.{at}") for at, (each, item) in pairs)
    elif get_origin(kind) is Mapping and isinstance(raw, Mapping):
        return {str(name): _value(get_args(kind)[1], item, where=f"{where}.{name}") for name, item in raw.items()}
    elif kind is float and (raw is None or (isinstance(raw, str) and raw in INFINITE)):
        return math.nan if raw is None else INFINITE[raw]
    elif kind is float and type(raw) is int and abs(raw) < 2**53:
        return float(raw)
    elif type(raw) is kind:
        return raw
    raise ValueError(f"{where} is not of its type")
