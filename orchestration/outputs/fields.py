"""From what JSON kept to the frozen dataclass that was written: every field is there and of its type, or it is refused.

pydantic would do, but it takes no text with half a surrogate pair, which data and answers of models may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Value = TypeVar("Value")


def from_fields(kind: type[Value], raw: Mapping[str, object]) -> Value:
    """The dataclass `kind` of these fields, as `dataclasses.asdict` and JSON left them; nothing is bent to fit.

    Texts, numbers, tuples, mappings from texts, dataclasses and None beside one of them may stand in it.

    Raises:
        ValueError: a field is missing, unknown or of another type; which one, in words.
    """
    return _dataclass(kind, raw, where="")  # type: ignore[no-any-return]  # it is one of `kind`


def _dataclass(kind: Any, raw: object, *, where: str) -> Any:
    types = get_type_hints(kind)
    wanted = {field.name for field in fields(kind)}
    if not isinstance(raw, Mapping) or raw.keys() != wanted:
        there = set(raw) if isinstance(raw, Mapping) else set[object]()
        odd = sorted(map(repr, there ^ wanted))
        raise ValueError(f"{where or kind.__name__}: {odd[0]} is missing or unknown")
    return kind(**{name: _value(types[name], raw[name], where=f"{where}.{name}".lstrip(".")) for name in wanted})


def _value(kind: Any, raw: object, *, where: str) -> Any:
    if get_origin(kind) is UnionType:
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
        if raw is None:
            return None
    if is_dataclass(kind):
        return _dataclass(kind, raw, where=where)
    if get_origin(kind) is tuple and isinstance(raw, list):
        inner = get_args(kind)
        kinds = [inner[0]] * len(raw) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(raw):
            pairs = enumerate(zip(kinds, raw, strict=True))
            return tuple(_value(each, item, where=f"{where}.{at}") for at, (each, item) in pairs)
    elif get_origin(kind) is Mapping and isinstance(raw, Mapping):
        return {str(name): _value(get_args(kind)[1], item, where=f"{where}.{name}") for name, item in raw.items()}
    elif kind is float and type(raw) is int and abs(raw) < 2**53:
        return float(raw)
    elif type(raw) is kind:
        return raw
    raise ValueError(f"{where} is not of its type")
