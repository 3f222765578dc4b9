"""Sets of examples that the stages of a task experiment learn from, and which text was made of which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from evaluation.tasks.examples import Example
from orchestration.inputs.rows import Row

Place = tuple[str, int]
"""Of an example: the name of its set, and the number of its row there."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What was made of one text: where it stands itself, and each of its copies in their order (None: an empty one)."""

    source: Place
    places: tuple[Place | None, ...]


@dataclass(frozen=True, slots=True)
class TaskSets:
    """Examples by the name of their set, and what there is to say about them, a line each.

    `routed` has the teacher of each example, those of dev and test too, where rows are routed to several.
    `copies` says of every augmented set what its texts were made of. Rows that cannot be used, or that are left out,
    are named there all the same.
    """

    sets: Mapping[str, tuple[Example, ...]]
    notes: tuple[str, ...]
    copies: Mapping[str, tuple[Copies, ...]] = field(default_factory=dict)
    routed: Mapping[Example, str] = field(default_factory=dict)

    def only(self, names: Collection[str]) -> dict[str, tuple[Example, ...]]:
        """The sets of these names, in their order here."""
        return {name: examples for name, examples in self.sets.items() if name in names}

    def of_teacher(self, name: str) -> TaskSets:
        """What is routed to a teacher; everything where nothing is routed."""
        return replace(self, sets={each: self.part_of(name, examples) for each, examples in self.sets.items()})

    def part_of(self, name: str, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        """Those of some examples that are routed to a teacher; all where nothing is routed."""
        if not self.routed:
            return examples
        return tuple(example for example in examples if self.routed[example] == name)

    def of(self, names: Iterable[str]) -> tuple[Example, ...]:
        """The examples of several sets, one set after the other."""
        return tuple(example for name in names for example in self.sets[name])


@dataclass(frozen=True, slots=True)
class RowSet:
    """Examples, and the rows that they were read from by their numbers."""

    examples: tuple[Example, ...]
    rows: Mapping[int, Row]
