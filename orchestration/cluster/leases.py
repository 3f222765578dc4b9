"""The queue of a fill, from which its engines draw their work.

It hands out leases of items. An engine draws from it as it has room, so that it never waits at the end of a lease. An
engine holds what it was handed as long as it is heard of (`pulse`), which it asks before each commit.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic

import ray

from orchestration.cluster.pulse import Life
from orchestration.fill.engine_loop import AnyItem, FillProgress, longest

DRAWN_AT_ONCE = 8_192
"""Items that are drawn and put into a queue together."""

AHEAD = 1_024
"""Items that wait in a queue for each engine: a fast one of a small model needs some ten seconds for them."""

LEASE = 16
"""Items of one lease: a dead engine loses at most this many that it had not begun."""


class ItemQueue(Generic[AnyItem]):
    """Items still to be done, and the progress of those at work on them. Threads may share it.

    With a budget, an item is handed out only if its longest possible answer still fits beside everything that is
    done or under way, so the budget is never exceeded.
    """

    def __init__(
        self,
        items: Sequence[tuple[int, AnyItem]],
        *,
        token_budget: int | None,
        engines: int = 1,
    ) -> None:
        self._waiting = deque(items)
        self._token_budget = token_budget
        self._reserved = 0
        self._handed_out = array("q")
        self._progress = FillProgress()
        self._stopped = False
        self._engines = engines
        self._joules = math.nan
        self._lock = threading.Lock()

    def lease(self) -> list[tuple[int, AnyItem]]:
        """Up to `LEASE` items; empty when there is no more work that may be done."""
        leased: list[tuple[int, AnyItem]] = []
        with self._lock:
            while self._waiting and len(leased) < LEASE and not self._stopped and self._affords(self._waiting[0][1]):
                self._reserved += longest(self._waiting[0][1])
                leased.append(self._waiting.popleft())
            for position, item in leased:
                # What is asked about one text stands at as many positions.
                self._handed_out.extend(range(position, position + (len(item) if isinstance(item, tuple) else 1)))
        return leased

    def add(self, items: Sequence[tuple[int, AnyItem]]) -> tuple[int, bool]:
        """Put more items behind the others; how many wait now, and whether a lease would give one."""
        with self._lock:
            self._waiting.extend(items)
            ready = bool(self._waiting) and not self._stopped and self._affords(self._waiting[0][1])
            return len(self._waiting), ready

    def handed_out(self) -> list[int]:
        """The positions of everything that engines were handed so far."""
        with self._lock:
            return list(self._handed_out)

    def report(self, delta: FillProgress) -> bool:
        """Add what an engine did since its last report; the answer is whether it should stop."""
        with self._lock:
            self._progress.add(delta)
            return self._stopped

    def holds(self) -> bool:
        """Whoever draws from a queue of its own process lives as long as it does."""
        return True

    def progress(self) -> FillProgress:
        """The totals so far."""
        return self._progress

    def stop(self) -> None:
        """Hand out nothing more; engines commit what they have at their next report."""
        self._stopped = True

    def measured(self, joules: float) -> None:
        """Take note of the energy that the fill has taken so far, on all its machines."""
        self._joules = joules

    def joules(self) -> float:
        """The share of one engine in that; NaN as long as nobody measures."""
        return self._joules / self._engines

    def _affords(self, item: AnyItem) -> bool:
        if self._token_budget is None:
            return True
        under_way = self._reserved - self._progress.settled_tokens
        return self._progress.forward_tokens + under_way + longest(item) <= self._token_budget


LeaseQueue = ray.remote(num_cpus=0)(ItemQueue)
"""A queue that engines of a cluster share."""


class Feed(Generic[AnyItem]):
    """Keeps so many items `ahead` of the engines of a queue, as long as there are more; `over` once all are drawn.

    `add` is that of the queue (`ItemQueue.add`), wherever it lies.
    """

    def __init__(
        self,
        add: Callable[[Sequence[tuple[int, AnyItem]]], tuple[int, bool]],
        items: Iterator[tuple[int, AnyItem]],
        *,
        ahead: int = AHEAD,
        over: bool = False,
    ) -> None:
        self._add, self._items, self._ahead, self._over = add, items, ahead, over

    def top_up(self) -> bool:
        """Draw some more where too few wait; whether engines that have ended would find something to do."""
        if self._over:
            return False
        waiting, ready = self._add([])
        if waiting < self._ahead:
            more = list(islice(self._items, DRAWN_AT_ONCE))
            waiting, ready = self._add(more)
            # As long as some wait an engine may have ended before they came.
            self._over = not more and waiting == 0
        return ready


class RemoteLeases(Generic[AnyItem]):
    """The queue as one engine of several sees it."""

    def __init__(self, queue: ray.actor.ActorHandle, life: Life) -> None:
        self._queue, self._life = queue, life

    def lease(self) -> list[tuple[int, AnyItem]]:
        """The next lease; empty when there is no more work."""
        leased: list[tuple[int, AnyItem]] = ray.get(self._queue.lease.remote())
        return leased

    def report(self, delta: FillProgress) -> bool:
        """Report progress; the answer is whether to stop."""
        return bool(ray.get(self._queue.report.remote(delta)))

    def holds(self) -> bool:
        """Whether this engine may commit: it was not given up."""
        return self._life.holds()

    def joules(self) -> float:
        """This engine's share of the energy so far."""
        return float(ray.get(self._queue.joules.remote()))
