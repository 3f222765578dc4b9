"""Which group a test row belongs to: the value of a field of the row, as the user names it.

A row that does not say it, and a value that too few rows have, belong to no group that is measured, and that is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import DataError
from configs.task import TaskConfig
from configs.visible_text import visible
from evaluation.side_effects.group_gaps import InGroup
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs.rows import Row
from orchestration.inputs.tasks import task_rows

FEWEST_IN_GROUP = 20
"""Rows of a group, and beside it; of fewer a difference of half of all rows could not be seen."""

MOST_GROUPS = 12
"""A field with more values than this does not name groups."""

SHOWN = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one field: the rows that say it, the value of each, and how many rows are `silent` about it."""

    field: str
    rows: tuple[int, ...]
    values: tuple[str, ...]
    silent: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many rows each group has, the largest first."""
        return dict(Counter(self.values).most_common())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each group and what it is held against, in words; of two groups the smaller one against the other."""
        names = list(self.sizes)
        if len(names) == 2:
            return [(names[1], names[0])]
        return [(name, "the rest") for name in names]

    def members(self, group: str) -> InGroup:
        """Which rows are of a group."""
        return np.array([value == group for value in self.values])


def field_rows(task: TaskConfig, *, folder: Path) -> dict[int, Row]:
    """The test rows of a task, whose file lies in `folder`, with all their fields, by number.

    Raises:
        DataError: they cannot be read.
    """
    rows = task_rows(task.data.test, split="test", folder=folder)
    return {number: row for number, row in rows if not isinstance(row, str)}


def said_of(field: str, rows: Mapping[int, Row]) -> dict[str, str]:
    """What each row says of a field, for a digest; "" where it says nothing."""
    found = {}
    for number, row in rows.items():
        try:
            found[str(number)] = str(row_field(row, field))
        except UnfitRowError:
            found[str(number)] = ""
    return found


def groups_of(field: str, rows: Mapping[int, Row], *, numbers: Sequence[int]) -> Groups:
    """The groups of a field among the rows of these numbers.

    Raises:
        DataError: it is no field of the rows, its values are no groups, or there is but one.
    """
    values = {number: value for number in numbers if (value := _value(rows[number], field))}
    if not values:
        known = ", ".join(visible(str(name), at_most=SHOWN) for name in rows[numbers[0]])
        raise DataError(f"no test row says {field}: name one of their fields ({known}), or add it to the rows")
    found = Groups(field, tuple(values), tuple(values.values()), len(numbers) - len(values))
    if len(found.sizes) > MOST_GROUPS:
        raise DataError(
            f"{field} has {len(found.sizes):,} values in {len(values):,} test rows, and more than {MOST_GROUPS} are no "
            "groups: add a field with fewer (such as age by decades), and name that"
        )
    if len(found.sizes) == 1:
        raise DataError(f"all test rows that say {field} say {found.values[0]}: there is no other group beside it")
    return found


def _value(row: Row, field: str) -> str:
    """The group of a row; "" where it says nothing.

    Raises:
        DataError: what it holds is no name of a group.
    """
    try:
        value = row_field(row, field)
    except UnfitRowError:
        return ""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str | int | bool):
        raise DataError(
            f"{field} holds a {type(value).__name__} in a test row, and groups have names: let it hold text or whole "
            "numbers"
        )
    return visible(str(value).strip(), at_most=SHOWN)
