"""What JSON kept becomes the dataclass that was written, or a ValueError that names the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.outputs.fields import from_fields, to_fields


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: float
    count: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    rows: tuple[Row, ...]
    times: tuple[tuple[str, float], ...]
    digests: Mapping[str, str]


TABLE = Table((Row("a", 0.1 + 0.2, 3, ("ä", "half \ud83d")),), (("fill", 1.5),), {"k": "v"})


def kept() -> Any:
    return json.loads(json.dumps(to_fields(TABLE), allow_nan=False))


def test_it_reads_back_the_same() -> None:
    assert from_fields(Table, kept()) == TABLE
    assert from_fields(Table, {"rows": [], "times": [], "digests": {}}) == Table((), (), {})


def test_a_whole_number_is_a_float_too_and_an_undefined_one_stays() -> None:
    raw = kept()
    raw["rows"][0]["value"] = 2
    assert type(from_fields(Table, raw).rows[0].value) is float
    raw["rows"][0]["value"] = math.nan
    assert math.isnan(from_fields(Table, raw).rows[0].value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_json_that_every_reader_takes_holds_every_float(value: float) -> None:
    table = replace(TABLE, rows=(replace(TABLE.rows[0], value=value),), times=(("fill", value),))
    found = from_fields(Table, json.loads(json.dumps(to_fields(table), allow_nan=False)))
    assert repr(found) == repr(table)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("rows",), "a", "rows is not of its type"),
        (("rows", 0), 3, "rows.0: 'count' is missing or unknown"),
        (("rows", 0, "extra"), 3, "rows.0: 'extra' is missing or unknown"),
        (("rows", 0, "name"), None, "rows.0.name is not of its type"),
        (("rows", 0, "value"), "0.5", "rows.0.value is not of its type"),
        (("rows", 0, "value"), True, "rows.0.value is not of its type"),
        (("rows", 0, "value"), 10**400, "rows.0.value is not of its type"),
        (("rows", 0, "count"), True, "rows.0.count is not of its type"),
        (("rows", 0, "count"), 3.0, "rows.0.count is not of its type"),
        (("rows", 0, "texts"), "ab", "rows.0.texts is not of its type"),
        (("rows", 0, "texts"), ["a", 1], "rows.0.texts.1 is not of its type"),
        (("times", 0), ["fill"], "times.0 is not of its type"),
        (("rows", 0, "value"), "Infinity", "rows.0.value is not of its type"),
        (("rows", 0, "count"), None, "rows.0.count is not of its type"),
        (("digests",), [], "digests is not of its type"),
        (("digests", "k"), 1, "digests.k is not of its type"),
    ],
)
def test_nothing_is_bent_to_fit(path: tuple[Any, ...], value: object, reason: str) -> None:
    raw = inner = kept()
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValueError) as refused:
        from_fields(Table, raw)
    assert str(refused.value) == reason


def test_a_field_that_is_missing_is_named() -> None:
    raw = kept()
    del raw["times"]
    with pytest.raises(ValueError, match=r"^Table: 'times' is missing or unknown$"):
        from_fields(Table, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(rows=JSON, times=JSON, digests=JSON)
def test_whatever_stands_there_is_a_table_or_a_value_error(rows: Any, times: Any, digests: Any) -> None:
    try:
        found = from_fields(Table, {"rows": rows, "times": times, "digests": digests})
    except ValueError:
        return
    assert isinstance(found, Table)
