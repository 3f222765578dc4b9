"""Turning validation errors into lines that a reader can act upon: `key: given X; must be Y`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from configs.schema import DistillConfig
from configs.secrets import redact

_SHOWN = 60
"""Characters of a given value that are shown."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text (put it in quotes)",
    "path_type": "a path (text; put it in quotes)",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a block of names, each with its own keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "union_tag_not_found": "a block that names its kind",
    "string_pattern_mismatch": "a name of 1 to 64 small letters, digits and . _ -, beginning with a letter or digit",
    "too_short": "at least {min_length} entry, not empty",
}
"""What is allowed, by pydantic's type of error; `{...}` is filled from the error's context."""

_Key = tuple[int | str, ...]


def explain(
    errors: Sequence[ErrorDetails], *, data: Mapping[str, Any], schema: type[BaseModel] = DistillConfig
) -> list[str]:
    """One line for every key that is wrong, in the order of `schema`.

    `data` is what was validated: it tells keys from pydantic's names of union branches, which also stand in a
    location.
    """
    grouped: dict[_Key, list[ErrorDetails]] = {}
    for error in errors:
        # Elements that are wrong themselves do not count for pydantic: the list is not short, and they are reported.
        if error["type"] == "too_short" and error["input"]:
            continue
        grouped.setdefault(_location(error, data), []).append(error)
    return [_line(key, group, data, schema) for key, group in grouped.items()]


def _location(error: ErrorDetails, data: Any) -> _Key:
    """The part of the error's location that names keys of the user's data."""
    location: list[int | str] = []
    value: Any = data
    for part in error["loc"]:
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not is_index and not (isinstance(value, dict) and part in value):
            # A missing key is not in the data but is what the error is about; any other is a branch's name.
            if error["type"] == "missing" and part == error["loc"][-1]:
                return (*location, part)
            if isinstance(value, dict):
                # The tag of a kind of block: its keys follow.
                continue
            return tuple(location)
        value = value[part]
        location.append(part)
    return tuple(location)


def _line(key: _Key, group: Sequence[ErrorDetails], data: Any, schema: type[BaseModel]) -> str:
    first = group[0]
    where = _dotted(key)
    if first["type"] == "missing":
        return f"{where}: is required; add it"
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_nearest(key, schema)}"
    if first["type"] == "value_error":
        # A contradiction between blocks names its keys in full and has no place of its own.
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    allowed = " or ".join(dict.fromkeys(_allowed(error) for error in group))
    given = key[-1] if first["loc"] and first["loc"][-1] == "[key]" else _at(data, key)
    return f"{where}: given {_shown(given)}; must be {allowed}"


def _allowed(error: ErrorDetails) -> str:
    template = _EXPECTED.get(error["type"])
    if template is None:
        message = error["msg"].removeprefix("Input should be ")
        return message[:1].lower() + message[1:]
    return template.format_map(error.get("ctx", {}))


def _nearest(key: _Key, schema: type[BaseModel]) -> str:
    """The cure for an unknown key: the nearest valid one, or where else it belongs, or all that are valid there."""
    name = str(key[-1])
    valid = sorted({field for block in _blocks(key[:-1], schema) for field in block.model_fields})
    if name in valid:
        return "another kind of block takes it, not this one; remove it"
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f"did you mean {_dotted((*key[:-1], close[0]))}?"
    elsewhere = sorted(path for path in _all_keys(schema, "") if path.rpartition(".")[2] == name)
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"remove it; valid here: {', '.join(valid)}"


def _blocks(key: _Key, schema: type[BaseModel]) -> list[type[BaseModel]]:
    """The blocks of the schema that stand at `key`."""
    annotations: list[Any] = [schema]
    for part in key:
        following: list[Any] = []
        for block in (block for annotation in annotations for block in _models(annotation)):
            if isinstance(part, str) and part in block.model_fields:
                following.append(block.model_fields[part].annotation)
        # A name under a dict or an index into a tuple: the annotation already covers the element.
        annotations = following or annotations
    return [block for annotation in annotations for block in _models(annotation)]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every block inside an annotation: of an option, a list's elements, a dict's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _all_keys(block: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in block.model_fields.items():
        yield prefix + name
        for model in _models(field.annotation):
            yield from _all_keys(model, f"{prefix}{name}.{_inner(field.annotation)}")


def _inner(annotation: Any) -> str:
    """What stands between a key and those of its blocks: a name, an index, or nothing."""
    if get_origin(annotation) is dict:
        return "NAME."
    return "0." if get_origin(annotation) is tuple else ""


def _dotted(key: _Key) -> str:
    return ".".join(str(part) for part in key)


def _at(data: Any, key: _Key) -> Any:
    for part in key:
        data = data[part]
    return data


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = redact(repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
