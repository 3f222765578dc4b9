"""Signals that a fill asks for: all that is asked about one text goes to one engine, which reads the text once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cache import SignalRequest, TeacherCache
from orchestration.fill.engine_loop import FillOrder, Questions
from orchestration.fill.work import Kept, Work


@dataclass(frozen=True, slots=True)
class WantedSignals:
    """Signals (`work.WantedRows`). Their tokens are read and none is written, so they have no response tokens."""

    requests: Sequence[SignalRequest]
    cache: TeacherCache
    order: FillOrder

    @property
    def identity(self) -> str:
        """See `WantedRows`."""
        return self.cache.identity.digest()

    def open_work(self, failed: Collection[SignalRequest]) -> list[Work[SignalRequest]]:
        """See `WantedRows`."""
        self.cache.refresh()
        missing = [self.requests[at] for at in self.cache.signals.missing(self.requests)]
        asked = [request for request in missing if request not in failed]
        # What is asked about one text stands together, also where it comes from different sets.
        together = [request for questions in by_text(asked) for request in questions]
        return [Work(tuple(together), self.order)] if together else []

    def names(self, requests: Sequence[SignalRequest]) -> list[bytes]:
        """See `WantedRows`."""
        return self.cache.signals.keys(requests)

    def missing(self, work: Work[SignalRequest]) -> list[SignalRequest]:
        """See `WantedRows`."""
        self.cache.refresh()
        return [work.requests[at] for at in self.cache.signals.missing(work.requests)]

    def kept(self, work: Work[SignalRequest]) -> Kept:
        """See `WantedRows`."""
        return Kept(len(work.requests) - len(self.missing(work)), 0)


def by_text(requests: Iterable[SignalRequest]) -> list[Questions]:
    """Requests that are about the same tokens and split side by side, in the order of their first."""
    found: dict[tuple[tuple[int, ...], int], list[SignalRequest]] = {}
    for request in requests:
        found.setdefault((request.token_ids, request.split), []).append(request)
    return [tuple(questions) for questions in found.values()]


def items_of(work: Iterable[tuple[int, SignalRequest]]) -> Iterator[tuple[int, Questions]]:
    """Numbered requests as items of an engine loop: neighbours about one text together, by the number of the first.

    Numbers of neighbours count up by one.
    """
    for _, about in groupby(work, key=lambda numbered: (numbered[1].token_ids, numbered[1].split)):
        (position, first), *others = about
        yield position, (first, *(request for _, request in others))
