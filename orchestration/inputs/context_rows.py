"""Which rows a teacher sees beside a row: its neighbours in the file, and worked examples.

Rows are chosen by their numbers, before anybody renders or tokenizes them; what is chosen follows from the rows and the
settings alone, whatever the tokenizer and however the rows are read.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from cache.batches import permutation
from cache.canonical import canonical
from configs import DataError
from configs.teacher_context import Neighbours, WorkedExamples
from configs.visible_text import REASON_CHARACTERS, visible

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Around:
    """The numbers of the rows `before` and `after` one, in the order of the file."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnExamples:
    """Row numbers of worked examples by what each says: those that are shown, and `spare`, which stands in for one."""

    shown: Mapping[Hashable, int]
    spare: int

    def shown_to(self, content: Hashable) -> tuple[int, ...]:
        """The examples of a row that says `content`: always the same ones, but for one that says just that."""
        return tuple(self.spare if said == content else row for said, row in self.shown.items())


def neighbours_of(rows: Mapping[int, Row], config: Neighbours, *, split: str) -> dict[int, Around]:
    """The neighbours of every row of a split; `rows` are those that can be read, by number, in the order of the file.

    A row without a value in `within` stands alone.

    Raises:
        DataError: a row has no field of that name.
    """
    groups: dict[str, list[int]] = {}
    around: dict[int, Around] = {}
    for number, row in rows.items():
        value = None if config.within is None else _value(row, number, config.within, split=split)
        if config.within is not None and value is None:
            around[number] = Around()
        else:
            groups.setdefault(json.dumps(value, sort_keys=True, default=str), []).append(number)
    for group in groups.values():
        for place, number in enumerate(group):
            around[number] = Around(
                before=tuple(group[max(0, place - config.before) : place]),
                after=tuple(group[place + 1 : place + 1 + config.after]),
            )
    return around


def draw_examples(contents: Mapping[int, Hashable], config: WorkedExamples) -> DrawnExamples:
    """Draw the worked examples of a teacher, and one to spare, from the rows of train that can be shown.

    `contents` say of each row, by number, what it asks; no two examples ask the same, so that the spare one is enough.

    Raises:
        DataError: too few rows ask different things.
    """
    order = permutation(len(contents), name=canonical("stillroom/context-examples/1", config.seed))
    numbers = list(contents)
    drawn: dict[Hashable, int] = {}
    for place in order.tolist():
        if len(drawn) > config.count:
            break
        drawn.setdefault(contents[numbers[place]], numbers[place])
    if len(drawn) <= config.count:
        raise DataError(
            f"teacher_context.examples.count={config.count} needs {config.count + 1} different rows of data.train with "
            f"gold answers (one to spare for a row that is an example itself), and there are {len(drawn)}: lower "
            "count, or add rows"
        )
    *shown, (_, spare) = drawn.items()
    return DrawnExamples(dict(shown), spare)


def _value(row: Row, number: int, field: str, *, split: str) -> Any:
    if field not in row:
        there = visible(", ".join(map(repr, row)) or "none", at_most=REASON_CHARACTERS)
        raise DataError(
            f"data.{split} row {number} has no field {field!r}, only {there}: correct teacher_context.neighbours.within"
        )
    return row[field]
