"""Groups are values of a field; what names none is refused with the cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from configs import DataError
from orchestration.audits.tasks.groups import Groups, groups_of, said_of


def rows(*values: Any) -> dict[int, dict[str, Any]]:
    return {number: {"text": "x", "who": {"sex": value}} for number, value in enumerate(values)}


def found(*values: Any) -> Groups:
    return groups_of("who.sex", rows(*values), numbers=range(len(values)))


def test_two_groups_are_held_against_each_other_and_more_against_the_rest() -> None:
    two = found("f", "m", "m", None, "f", "m", " ")
    assert two.sizes == {"m": 3, "f": 2} and two.silent == 2 and two.pairs == [("f", "m")]
    assert two.rows == (0, 1, 2, 4, 5)
    np.testing.assert_array_equal(two.members("f"), [True, False, False, True, False])
    more = found(1, 2, 3, True)
    assert more.pairs == [("1", "the rest"), ("2", "the rest"), ("3", "the rest"), ("True", "the rest")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((None, ""), r"no test row says who.sex: name one of their fields \(text, who\), or add it to the rows"),
        (("f", "f", None), "all test rows that say who.sex say f: there is no other group beside it"),
        (tuple(range(13)), "who.sex has 13 values in 13 test rows, and more than 12 are no groups: add a field with"),
        ((["f"], "m"), "who.sex holds a list in a test row, and groups have names"),
        ((0.5, "m"), "who.sex holds a float in a test row"),
    ],
)
def test_what_names_no_groups_is_refused_in_one_line(values: tuple[Any, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        found(*values)


def test_what_rows_say_is_told_whatever_it_is() -> None:
    assert said_of("who.sex", rows("f", ["x"], None)) == {"0": "f", "1": "['x']", "2": "None"}
    assert said_of("age", rows("f")) == {"0": ""}
