"""One engine's share of a fill: it draws requests, commits records and reports.

What is committed counts. An engine loop commits at least every `commit_every_s` seconds from a thread of its own,
because an engine that writes long answers may finish none for a while; whatever a killed engine had not committed is
simply still missing in the cache. What it spent is known all the same: every answer is counted in the ledger of the
experiment.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cache import GenerateRequest, SegmentWriter, TeacherRecord
from cache.answers import Request
from cache.keys import generation_key
from cache.protocols import Failure, Outcome
from configs import CacheError, RecordError
from configs.schema import StoredEncoding
from orchestration.fill.ledger import Counts, Meter
from orchestration.fill.spending import Spending
from teacher_server.requests import Asked

REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class FillOrder:
    """What to do with the outcomes of a fill; `ledger` is where the experiment counts what they cost.

    `gpus` is how many GPUs one engine has; on CPUs an engine counts as one.
    """

    scoring: bool
    cache_root: Path | str
    k: int
    commit_every_s: float
    licence: str | None
    provenance: dict[str, str]
    ledger: Path
    encoding: StoredEncoding = "topk-u8"
    gpus: float = 1.0


@dataclass(slots=True)
class FillProgress:
    """Work done.

    Forward tokens are prompt and response tokens together; settled tokens are what the same requests would have taken
    with the longest possible answers.
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


def longest(request: Request) -> int:
    """Forward tokens of a request if its answer is as long as it may be."""
    if isinstance(request, GenerateRequest):
        return len(request.prompt_ids) + request.max_new_tokens
    return len(request.token_ids)


class StepwiseSource(Protocol):
    """An engine that hands over what each of its steps has finished, all at once (`FakeTeacher`, `VllmEngine`)."""

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `VllmEngine.work`."""
        ...


class Leases(Protocol):
    """Where an engine loop gets its requests from and reports to."""

    def lease(self) -> list[tuple[int, Request]]:
        """The next (position, request) pairs; empty when there is no more work."""
        ...

    def report(self, delta: FillProgress) -> bool:
        """Report the work since the last report; the answer is whether to stop."""
        ...

    def joules(self) -> float:
        """This engine's share of the energy that the fill has taken so far; NaN where nobody measures it."""
        ...


class EngineLoop:
    """One pass of one engine over a queue."""

    def __init__(self, leases: Leases, order: FillOrder, writer: SegmentWriter) -> None:
        self._leases = leases
        self._order = order
        self._writer = writer
        self._meter = Meter(order.ledger)
        self._spending = Spending(gpus=order.gpus, joules=leases.joules)
        self._drawn: dict[int, tuple[int, Request]] = {}
        self._delta = FillProgress()
        # Guards the writer and the delta, which the reporting thread touches as well.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._finished = threading.Event()

    def work(self, engine: StepwiseSource) -> None:
        """Answer requests until there are none or a stop is asked for; everything finished is then committed.

        A stop takes effect between two steps of the engine: of the last one every answer is kept.

        Raises:
            CacheError: the cache cannot be written.
            EngineError: the engine died; what it had finished is committed.
        """
        reporter = threading.Thread(target=self._report_until_finished, daemon=True)
        reporter.start()
        try:
            with closing(engine.work(Asked(request, self._order.k) for request in self._draw())) as steps:
                for finished in steps:
                    for index, outcome in finished:
                        self._take(*self._drawn.pop(index), outcome)
                    if self._stop.is_set():
                        break
        finally:
            self._finished.set()
            reporter.join()
            self._commit()
            self._report()
            self._meter.close()

    def _draw(self) -> Iterator[Request]:
        index = 0
        while not self._stop.is_set() and (leased := self._leases.lease()):
            for position, request in leased:
                self._drawn[index] = (position, request)
                index += 1
                yield request

    def _take(self, position: int, request: Request, outcome: TeacherRecord | Failure) -> None:
        with self._lock:
            self._delta.settled_tokens += longest(request)
            if isinstance(outcome, Failure):
                self._delta.failures.append((position, outcome.reason))
                return
            self._delta.forward_tokens += len(outcome.token_ids)
            self._meter.add(Counts(fill=len(outcome.token_ids)))
            try:
                if isinstance(request, GenerateRequest):
                    key = generation_key(self._writer.identity_digest, request)
                    self._writer.add(outcome, generation_key=key, max_new_tokens=request.max_new_tokens)
                else:
                    self._writer.add(outcome)
            except RecordError as error:
                self._delta.failures.append((position, str(error)))
                return
            self._delta.rows += 1
            self._delta.response_tokens += outcome.response_len

    def _report_until_finished(self) -> None:
        while not self._finished.wait(REPORT_EVERY_S):
            try:
                # After a stop the engine may work on an answer for longer than its process may live, so what it has
                # finished is kept at once.
                if self._stop.is_set() or self._writer.due(self._order.commit_every_s):
                    self._commit()
            except CacheError:
                # More answers could not be kept either. `work` tries once more to commit, and raises if it cannot.
                self._stop.set()
                return
            self._report()

    def _commit(self) -> None:
        with self._lock:
            # Before the commit, so that nothing is in the cache that was not counted.
            self._meter.sync()
            # What brings nothing that can be kept is left to the next commit.
            spent = self._spending.take() if self._writer.pending_rows else None
            report = self._writer.commit(spent)
            if report is not None:
                self._delta.committed_rows += report.rows
                self._delta.committed_bytes += report.bytes

    def _report(self) -> None:
        with self._lock:
            delta, self._delta = self._delta, FillProgress()
        if self._leases.report(delta):
            self._stop.set()
