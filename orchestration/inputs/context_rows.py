"""Which rows a teacher sees beside a row: its neighbours in the file, and worked examples.

Rows are chosen by their numbers, before anybody renders or tokenizes them; what is chosen follows from the rows and the
settings alone, whatever the tokenizer and however the rows are read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.batches import permutation
from cache.canonical import canonical
from cache.rows import Positions
from configs import DataError
from configs.teacher_context import Neighbours, WorkedExamples
from configs.visible_text import REASON_CHARACTERS, visible

Row = Mapping[str, Any]

ALONE = -1
"""The group of a row that has no neighbours."""


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


class Neighbourhood(Mapping[int, Around]):
    """The neighbours of every row, by its number. 40 bytes of memory a row."""

    def __init__(self, numbers: Positions, groups: Positions, config: Neighbours) -> None:
        """Rows of the same group are neighbours, in their order; one of group `ALONE` has none."""
        self._numbers, self._groups, self._config = numbers, groups, config
        self._order = np.argsort(groups, kind="stable")
        self._sorted = groups[self._order]
        self._places = np.empty_like(self._order)
        self._places[self._order] = np.arange(len(self._order))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers.tolist())

    def __getitem__(self, number: int) -> Around:
        at = self.place(number)
        group = self._groups[at]
        if group == ALONE:
            return Around()
        first, end = (int(np.searchsorted(self._sorted, group, side=side)) for side in ("left", "right"))
        place = int(self._places[at])
        return Around(
            before=self._at(max(first, place - self._config.before), place),
            after=self._at(place + 1, min(end, place + 1 + self._config.after)),
        )

    def place(self, number: int) -> int:
        """The position of a row among all that can be read."""
        at = int(np.searchsorted(self._numbers, number))
        if at == len(self._numbers) or self._numbers[at] != number:
            raise KeyError(number)
        return at

    def _at(self, start: int, stop: int) -> tuple[int, ...]:
        return tuple(self._numbers[self._order[start:stop]].tolist())


def neighbours_of(rows: Iterable[tuple[int, Row]], config: Neighbours, *, split: str) -> Neighbourhood:
    """The neighbours of every row of a split; `rows` are those that can be read, with their numbers, as in the file.

    A row without a value in `within` stands alone.

    Raises:
        DataError: a row has no field of that name.
    """
    known: dict[str, int] = {}
    numbers, groups = array("q"), array("q")
    for number, row in rows:
        value = None if config.within is None else _value(row, number, config.within, split=split)
        numbers.append(number)
        if config.within is not None and value is None:
            groups.append(ALONE)
        else:
            groups.append(known.setdefault(json.dumps(value, sort_keys=True, default=str), len(known)))
    return Neighbourhood(np.array(numbers, dtype=np.int64), np.array(groups, dtype=np.int64), config)


@dataclass(frozen=True, slots=True)
class Said:
    """What the rows before and after one say: the last words of the user of each."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearby:
    """Which rows of a split stand around which, and the words of each, which lie in a file."""

    rows: Neighbourhood | None = None
    words: Sequence[bytes] = ()

    def around(self, number: int) -> Said:
        """What stands around a row."""
        if self.rows is None:
            return Said()
        found = self.rows.get(number, Around())
        return Said(self._said(found.before), self._said(found.after))

    def _said(self, numbers: Sequence[int]) -> tuple[str, ...]:
        assert self.rows is not None
        return tuple(self.words[self.rows.place(each)].decode("utf-8", "surrogatepass") for each in numbers)


def draw_examples(contents: Mapping[int, Hashable], config: WorkedExamples) -> DrawnExamples:
    """Draw the worked examples of a teacher, and one to spare, from the rows of train that can be shown.

    `contents` say of each row, by number, what it asks; no two examples ask the same, so that the spare one is enough.

    Raises:
        DataError: too few rows ask different things.
    """
    order = permutation(len(contents), name=canonical("stillroom/context-examples/1", config.seed))
    numbers = list(contents)
    drawn: dict[Hashable, int] = {}
    for place in map(int, order):
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
