"""What a fill asks of a work itself: lot after lot, claimed as engines come to it, and looked at again behind them.

Naming, claiming and looking take processor time for every row, about as much as many fast engines have for it. So they
run ahead of what is drawn and behind what is answered: no engine waits for them, nor at the end of a lot for the
longest answer of it. Of all that is ours only the places are held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Generic, Self

import numpy as np

from cache.claims import Claims
from cache.rows import JoinedRows, Positions, TakenRows
from orchestration.fill.work import AnyRequest, Kept, WantedRows, Work

LOT = 16_384
"""Requests that are named, claimed and looked at together."""

BEHIND = 8
"""Lots that engines are given before the first of them is looked at again; by then it is answered, mostly."""

PASS = 1_048_576
"""Requests that engines are asked without a pause, at most; what cannot be answered is remembered after each pass."""


@dataclass(slots=True, eq=False)
class _Part(Generic[AnyRequest]):
    """What of a lot is ours: places in the work, and the position of the first among all that is ours.

    `fresh` are the requests as they were just made, until they are drawn. The claim is released with `held`.
    """

    first: int
    places: Positions
    fresh: Sequence[AnyRequest]
    held: ExitStack
    answered: bool = False


@dataclass(slots=True, eq=False)
class Claimed(Generic[AnyRequest]):
    """The requests of a work that no other pipeline asks for; claims last as long as the context, or until answered."""

    work: Work[AnyRequest]
    wanted: WantedRows[AnyRequest]
    claims: Claims
    _parts: list[_Part[AnyRequest]] = field(default_factory=list)
    _looked: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as held:
            for part in self._parts:
                held.push(part.held)

    def __len__(self) -> int:
        """How many there are so far."""
        return self._parts[-1].first + len(self._parts[-1].places) if self._parts else 0

    def __iter__(self) -> Iterator[tuple[int, AnyRequest]]:
        """Each with its position; the next lot is claimed when those before it are drawn."""
        at = 0
        while at < len(self._parts) or self.more():
            part = self._parts[at]
            drawn, part.fresh = part.fresh, ()
            yield from enumerate(drawn, part.first)
            at += 1
            if at > BEHIND:
                self._lacking(self._parts[at - 1 - BEHIND])

    @property
    def requests(self) -> Sequence[AnyRequest]:
        """All of them so far, made when they are looked at."""
        return JoinedRows([self._rows(part) for part in self._parts])

    def at(self, position: int) -> AnyRequest:
        """The one at a position."""
        part = self._parts[bisect_right(self._parts, position, key=lambda each: each.first) - 1]
        return self._rows(part)[position - part.first]

    def more(self) -> bool:
        """Claim the next lot of which something is ours; whether there is one."""
        while self._looked < len(self.work.requests):
            start, self._looked = self._looked, self._looked + LOT
            if self._claimed(start, self.work.requests[start : self._looked]):
                return True
        return False

    def lacking(self, failed: Collection[AnyRequest]) -> dict[int, AnyRequest]:
        """Those that are neither answered nor known to fail, by position, by a new look at the cache."""
        found: dict[int, AnyRequest] = {}
        for part in self._parts:
            missing = set(self._lacking(part)).difference(failed)
            if missing:
                rows = enumerate(self._rows(part), part.first)
                found |= {position: request for position, request in rows if request in missing}
        return found

    def kept(self) -> Kept:
        """What of them the cache holds, by a new look at it."""
        kept = [self.wanted.kept(replace(self.work, requests=self._rows(part))) for part in self._parts]
        return Kept(sum(each.rows for each in kept), sum(each.response_tokens for each in kept))

    def _claimed(self, start: int, lot: Sequence[AnyRequest]) -> bool:
        """Claim what is free of a lot that begins at `start` of the work; whether anything of it is ours."""
        names, k = self.wanted.names(lot), self.work.claimed_k
        free = np.flatnonzero(~self.claims.held(names, k=k))
        if not len(free):
            return False
        with ExitStack() as held:
            claim = held.enter_context(self.claims.claim([names[at] for at in free], k=k))
            ours = free[claim.mine]
            # Before the claim was made another pipeline may have asked for these rows and committed them.
            missing = set(self.wanted.missing(replace(self.work, requests=tuple(lot[at] for at in ours))))
            places = [int(at) for at in ours if lot[at] in missing]
            if places:
                fresh = tuple(lot[at] for at in places)
                self._parts.append(_Part(len(self), start + np.array(places, np.int64), fresh, held.pop_all()))
        return bool(places)

    def _lacking(self, part: _Part[AnyRequest]) -> list[AnyRequest]:
        """What of a part nothing answers. Its claim is released when that is nothing."""
        if part.answered:
            return []
        missing = self.wanted.missing(replace(self.work, requests=self._rows(part)))
        if not missing:
            part.answered = True
            part.held.close()
        return missing

    def _rows(self, part: _Part[AnyRequest]) -> Sequence[AnyRequest]:
        return TakenRows(self.work.requests, part.places)


def passes(work: Work[AnyRequest]) -> Iterator[Work[AnyRequest]]:
    """The work in pieces of at most `PASS` requests."""
    count = len(work.requests)
    if count <= PASS:
        yield work
        return
    for at in range(0, count, PASS):
        yield replace(work, requests=TakenRows(work.requests, np.arange(at, min(at + PASS, count))))
