"""Which row kills the engine that is asked for it, found by halves.

When an engine dies, the rows that were under way are suspected. They are asked by themselves, half of them at a time: a
half that is answered is innocent, one that kills again is halved once more, until a row is alone. A row that an engine
died of twice, the last time alone, is guilty and set aside. So a guilty row among n costs at most log2(n) + 3 starts of
the engines; halves that are answered cost none. What an engine dies of by chance is simply asked again.

An engine that dies whatever it is asked is told from that by its answers: a third row, not all of one half, that is
found guilty before any row was answered ends the fill, after 2 log2(n) + 2 deaths at most, and no row is to blame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

from configs import EngineError
from orchestration.fill.work import AnyRequest, Work

MOST_DEATHS = 64
"""Of engines in one fill. What was found guilty by then is remembered: the next fill goes on with the others."""

KILLED = "an engine died twice while it was asked this, the last time with nothing else under way"

PROVED_BY = 2
"""Deaths that a row must have been under way at."""

GUILTY_UNANSWERED = 3
"""Rows that are found guilty without any answer in between: then it is not the rows."""


@dataclass(slots=True)
class Suspects(Generic[AnyRequest]):
    """Groups of rows of which one may be guilty, the next to be asked last."""

    groups: list[list[AnyRequest]] = field(default_factory=list)
    guilty: dict[AnyRequest, str] = field(default_factory=dict)
    answered: bool = False
    deaths: int = 0
    _under_way: Counter[AnyRequest] = field(default_factory=Counter)

    def narrow(self, works: Sequence[Work[AnyRequest]]) -> list[Work[AnyRequest]]:
        """Of what is open the group that is asked next; all of it where nothing is suspected."""
        while self.groups:
            group = set(self.groups[-1])
            parts = [replace(work, requests=tuple(r for r in work.requests if r in group)) for work in works]
            if kept := [part for part in parts if part.requests]:
                return kept
            self.groups.pop()
        return list(works)

    def survived(self, asked: Collection[AnyRequest]) -> None:
        """An engine lived through these: what is suspected of them is not any more."""
        if self.groups:
            innocent = set(asked)
            self.groups[-1] = [row for row in self.groups[-1] if row not in innocent]

    def died(self, asked: Sequence[AnyRequest], under_way: Sequence[AnyRequest], error: EngineError) -> bool:
        """An engine died with these rows `under_way`, which nobody answered; whether that leads anywhere.

        Raises:
            EngineError: engines die whatever they are asked, or died too often.
        """
        self.deaths += 1
        if self.groups:
            self.groups.pop()
        self._under_way.update(under_way)
        if len(asked) == 1 and self._under_way[asked[0]] >= PROVED_BY:
            self.guilty[asked[0]] = KILLED
            if not self.answered:
                # Its neighbours are often alike: whether the engine answers anything shows elsewhere.
                self.groups.reverse()
            if not self.answered and len(self.guilty) >= GUILTY_UNANSWERED:
                raise EngineError(
                    f"engines died {self.deaths} times and answered nothing, whatever they were asked; the last: "
                    f"{error}"
                ) from error
        elif under_way:
            half = (len(under_way) + 1) // 2
            self.groups += [part for part in (list(under_way[half:]), list(under_way[:half])) if part]
        if self.deaths >= MOST_DEATHS:
            raise EngineError(
                f"engines died {self.deaths} times in one fill, of {len(self.guilty)} rows that are set aside by now; "
                f"run again to go on with the others; the last: {error}"
            ) from error
        return bool(under_way)
