"""One engine's share of a fill: it draws what is asked, commits the answers and reports, whatever is asked.

What one engine is handed at once, and answers as a whole, is an *item*: a request for a sequence, or all that is asked
about one text. How items are answered and where the answers go is `Answering` (`answers`).

What is committed counts. An engine loop commits at least every `commit_every_s` seconds from a thread of its own,
because an engine that writes long answers may finish none for a while; whatever a killed engine had not committed is
simply still missing in the cache. What it spent is known all the same: every answer is counted in the ledger of the
experiment.

A process that was stopped, and goes on, may have been given up meanwhile: before anything is committed it is asked
whether what the engine was handed is still its own.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cache import CommitReport, SignalRequest
from cache.answers import Request
from cache.disk.spending import Spent
from cache.failures import EngineVersion
from configs import CacheError, EngineError
from configs.schema import StoredEncoding
from configs.task_teacher import SignalEncoding
from orchestration.fill.ledger import Counts, Meter
from orchestration.fill.spending import Spending
from teacher_server.requests import most_tokens

REPORT_EVERY_S = 0.5

Questions = tuple[SignalRequest, ...]
"""All that is asked about one text: requests of the same tokens and split."""

Item = Request | Questions

AnyItem = TypeVar("AnyItem", bound=Item)
AnyItem_contra = TypeVar("AnyItem_contra", bound=Item, contravariant=True)
Said = TypeVar("Said")


@dataclass(frozen=True, slots=True)
class FillOrder:
    """What to do with the outcomes of a fill; `ledger` is where the experiment counts what they cost.

    `scoring` and `k` are about sequences. What cannot be answered is remembered of this version of the `engine`, and of
    none where that is None. `gpus` is how many GPUs one engine has; on CPUs an engine counts as one.
    """

    scoring: bool
    cache_root: Path | str
    k: int
    commit_every_s: float
    licence: str | None
    provenance: dict[str, str]
    ledger: Path
    encoding: StoredEncoding | SignalEncoding = "topk-u8"
    gpus: float = 1.0
    engine: EngineVersion | None = None


@dataclass(slots=True)
class FillProgress:
    """Work done.

    Forward tokens are prompt and response tokens together; settled tokens are what the same requests would have taken
    with the longest possible answers. A failure is the position of its request, and the reason.
    """

    rows: int = 0
    response_tokens: int = 0
    forward_tokens: int = 0
    settled_tokens: int = 0
    committed_rows: int = 0
    committed_bytes: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: FillProgress) -> None:
        """Add the work of another report."""
        self.rows += other.rows
        self.response_tokens += other.response_tokens
        self.forward_tokens += other.forward_tokens
        self.settled_tokens += other.settled_tokens
        self.committed_rows += other.committed_rows
        self.committed_bytes += other.committed_bytes
        self.failures += other.failures


def longest(item: Item) -> int:
    """Forward tokens of an item if its answer is as long as it may be; of a text once, whatever is asked of it."""
    if isinstance(item, tuple):
        return len(item[0].token_ids)
    return most_tokens(item)


class Leases(Protocol[AnyItem]):
    """Where an engine loop gets its items from and reports to."""

    def lease(self) -> list[tuple[int, AnyItem]]:
        """The next items, each with the position of its (first) request; empty when there is no more work."""
        ...

    def report(self, delta: FillProgress) -> bool:
        """Report the work since the last report; the answer is whether to stop."""
        ...

    def holds(self) -> bool:
        """Whether what this engine was handed is still its own, to be committed."""
        ...

    def joules(self) -> float:
        """This engine's share of the energy that the fill has taken so far; NaN where nobody measures it."""
        ...


class Answering(Protocol[AnyItem_contra, Said]):
    """How an engine answers items of one kind, and where the answers are kept until they are committed."""

    def steps(self, items: Iterator[AnyItem_contra]) -> Generator[list[tuple[int, Said]], None, None]:
        """What each step of the engine has finished, all at once: (place among `items`, answer).

        `items` is drawn from lazily, as the engine has room.
        """
        ...

    def take(self, item: AnyItem_contra, said: Said) -> FillProgress:
        """Keep an answer for the next commit; says what it took. Failures are counted from the item's position."""
        ...

    @property
    def pending_rows(self) -> int:
        """Rows that are kept and not committed."""
        ...

    def due(self, commit_every_s: float) -> bool:
        """Whether the pending rows have waited long enough, or are many enough, to be committed."""
        ...

    def commit(self, spent: Spent) -> Iterator[CommitReport]:
        """Make the pending rows permanent, segment by segment; `spent` is what it took to get them all.

        Raises:
            CacheError: the disk refuses; the rows stay pending.
        """
        ...


class EngineLoop(Generic[AnyItem, Said]):
    """One pass of one engine over a queue."""

    def __init__(self, leases: Leases[AnyItem], order: FillOrder, answers: Answering[AnyItem, Said]) -> None:
        self._leases = leases
        self._order = order
        self._answers = answers
        self._meter = Meter(order.ledger)
        self._spending = Spending(gpus=order.gpus, joules=leases.joules)
        self._drawn: dict[int, tuple[int, AnyItem]] = {}
        self._delta = FillProgress()
        # Guards the answers and the delta, which the reporting thread touches as well.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._finished = threading.Event()

    def work(self) -> None:
        """Answer items until there are none or a stop is asked for; everything finished is then committed.

        A stop takes effect between two steps of the engine: of the last one every answer is kept.

        Raises:
            CacheError: the cache cannot be written.
            EngineError: the engine died; what it had finished is committed. Or it was silent for too long, and what it
                had not committed by then is dropped.
        """
        reporter = threading.Thread(target=self._report_until_finished, daemon=True)
        reporter.start()
        try:
            with closing(self._answers.steps(self._draw())) as steps:
                for finished in steps:
                    for index, said in finished:
                        self._take(*self._drawn.pop(index), said)
                    if self._stop.is_set():
                        break
        finally:
            self._finished.set()
            reporter.join()
            self._commit()
            self._report()
            self._meter.close()

    def _draw(self) -> Iterator[AnyItem]:
        index = 0
        while not self._stop.is_set() and (leased := self._leases.lease()):
            for position, item in leased:
                self._drawn[index] = (position, item)
                index += 1
                yield item

    def _take(self, position: int, item: AnyItem, said: Said) -> None:
        with self._lock:
            took = self._answers.take(item, said)
            took.failures = [(position + offset, reason) for offset, reason in took.failures]
            self._delta.add(took)
            if took.forward_tokens:
                self._meter.add(Counts(fill=took.forward_tokens))

    def _report_until_finished(self) -> None:
        while not self._finished.wait(REPORT_EVERY_S):
            try:
                # After a stop the engine may work on an answer for longer than its process may live, so what it has
                # finished is kept at once.
                if self._stop.is_set() or self._answers.due(self._order.commit_every_s):
                    self._commit()
            except (CacheError, EngineError):
                # More answers could not be kept either. `work` tries once more to commit, and raises if it cannot.
                self._stop.set()
                return
            self._report()

    def _commit(self) -> None:
        with self._lock:
            # Before the commit, so that nothing is in the cache that was not counted.
            self._meter.sync()
            # What brings nothing that can be kept is left to the next commit.
            if not self._answers.pending_rows:
                return
            if not self._leases.holds():
                raise EngineError("this engine was silent for too long: others are asked what it has not committed")
            for report in self._answers.commit(self._spending.take()):
                self._delta.committed_rows += report.rows
                self._delta.committed_bytes += report.bytes

    def _report(self) -> None:
        with self._lock:
            delta, self._delta = self._delta, FillProgress()
        if self._leases.report(delta):
            self._stop.set()
