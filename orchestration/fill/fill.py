"""Fill the cache: ask the teacher for what is missing, and for nothing else.

What that is, `WantedRows` says: sequences, or signals. An engine that dies costs what it had not committed; the fill
then starts new engines and asks for what is still missing, as long as that makes progress, and finds out which row they
die of (`suspects`). Rows that another pipeline is asking for are left to it: they are waited for, and asked for here
only if it ends without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Generic

from cache import SignalRequest, TeacherCache
from cache.answers import Request
from cache.claims import Claims
from cache.disk.roots import open_storage
from cache.failures import Failures
from configs import BudgetReached, DistillError, EngineError
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.ledger import read_counts
from orchestration.fill.lots import Claimed, passes
from orchestration.fill.sequences import WantedSequences
from orchestration.fill.signals import WantedSignals
from orchestration.fill.suspects import Suspects
from orchestration.fill.work import AnyRequest, Engines, EnginesDiedError, MemoryRanOutError, WantedRows, Work
from orchestration.outputs.console import ProgressSink
from orchestration.plan.requests import FillPlan
from orchestration.plan.signal_requests import SignalPlan

POLL_S = 1.0
"""How often a fill looks whether another pipeline has committed the rows that it waits for."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Budgets:
    """What is left of the experiment's limits; None is no limit."""

    teacher_tokens: int | None
    seconds: float | None

    @property
    def spent(self) -> bool:
        """Whether nothing is left of one of them."""
        return self.time_is_up or (self.teacher_tokens is not None and self.teacher_tokens <= 0)

    @property
    def time_is_up(self) -> bool:
        """Whether no time is left."""
        return self.seconds is not None and self.seconds <= 0

    def after(self, teacher_tokens: int, *, seconds: float) -> Budgets:
        """What is left after these tokens and this time."""
        return Budgets(
            None if self.teacher_tokens is None else self.teacher_tokens - teacher_tokens,
            None if self.seconds is None else self.seconds - seconds,
        )


@dataclass(slots=True)
class FillResult(Generic[AnyRequest]):
    """What a fill did. Rows are sequences, or signals.

    `teacher_tokens` are those of the experiment's ledger: also what engines spent that died before they could report.
    `failed` maps a request to the reason why the teacher could not answer it, now or before; `from_others` counts the
    misses that another pipeline fetched meanwhile.
    """

    teacher_tokens: int = 0
    response_tokens: int = 0
    rows: int = 0
    stored_bytes: int = 0
    from_others: int = 0
    failed: dict[AnyRequest, str] = field(default_factory=dict)


def fill(
    plan: FillPlan,
    *,
    cache: TeacherCache,
    engines: Engines[Request],
    order: FillOrder,
    budgets: Budgets,
    vocab: int,
    progress: ProgressSink,
) -> FillResult[Request]:
    """Ask for every miss of `plan` that no other pipeline is asking for, and wait for those that one is.

    Raises:
        BudgetReached: a budget ended the fill before all rows were there.
        EngineError: engines kept dying without making progress.
        CacheError: the cache cannot be read or written.
    """
    wanted = WantedSequences([part.sequences for part in plan.sets], cache, order)
    wanted.store_gold_text(vocab=vocab)
    return _Filling(
        wanted, FillResult(failed=plan.refused), engines=engines, order=order, budgets=budgets, progress=progress
    ).run()


def fill_signals(
    plan: SignalPlan,
    *,
    cache: TeacherCache,
    engines: Engines[SignalRequest],
    order: FillOrder,
    budgets: Budgets,
    progress: ProgressSink,
) -> FillResult[SignalRequest]:
    """Ask for every signal of `plan` that is missing, as `fill` does for sequences; it raises the same errors."""
    wanted = WantedSignals(plan.requests, cache, order)
    return _Filling(
        wanted, FillResult(failed=plan.refused), engines=engines, order=order, budgets=budgets, progress=progress
    ).run()


@dataclass(slots=True)
class _Filling(Generic[AnyRequest]):
    """A fill under way.

    `total` is the most that was ever missing, `missing` what is missing now, and `own` what our engines gave of it.
    `stalled` is why the last pass gained nothing: it ends the fill unless nothing is left to ask.
    """

    wanted: WantedRows[AnyRequest]
    result: FillResult[AnyRequest]
    _: KW_ONLY
    engines: Engines[AnyRequest]
    order: FillOrder
    budgets: Budgets
    progress: ProgressSink
    claims: Claims = field(init=False)
    known: Failures | None = field(init=False)
    unasked: frozenset[AnyRequest] = field(init=False)
    started: float = field(init=False)
    spent_before: int = field(init=False)
    suspects: Suspects[AnyRequest] = field(init=False, default_factory=Suspects)
    total: int = field(init=False, default=0)
    missing: int = field(init=False, default=0)
    own: int = field(init=False, default=0)
    stalled: DistillError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.started, self.spent_before = time.monotonic(), read_counts(self.order.ledger).fill
        storage = open_storage(self.order.cache_root, self.wanted.identity, create=False)
        self.claims = Claims(storage)
        # What nobody asks (`orchestration.fill.refusals`) was remembered where it was decided.
        self.unasked = frozenset(self.result.failed)
        engine = self.order.engine
        self.known = None if engine is None else Failures(storage, identity=self.wanted.identity, engine=engine)

    def run(self) -> FillResult[AnyRequest]:
        """Ask, and look again, until nothing is missing that can be had; see `fill` for what it raises."""
        while opened := self.wanted.open_work(self.result.failed):
            looked = time.monotonic()
            self.missing = sum(len(work.requests) for work in opened)
            self.total = max(self.total, self.missing)
            if not self._ask_all(opened):
                self._onward().update(0, note=f"waiting for {self.missing:,} rows that another pipeline is fetching")
                # Looking at a large plan takes seconds of CPU time, which the pipeline that fetches may need more.
                time.sleep(max(POLL_S, time.monotonic() - looked))
        self._set_aside(ended=True)
        self.result.from_others = max(self.total - self.own - len(self.suspects.guilty), 0)
        return self.result

    def _ask_all(self, opened: Sequence[Work[AnyRequest]]) -> bool:
        """Ask one work after the other until something is left of one; whether any of them had rows for us to ask."""
        asked = False
        for work in (piece for each in self.suspects.narrow(opened) for piece in passes(each)):
            left = self.budgets.after(self.result.teacher_tokens, seconds=time.monotonic() - self.started)
            with Claimed(work, self.wanted, self.claims) as ours:
                any_ours = ours.more()
                # Waiting takes no tokens, but it takes time, in which our engines stay up.
                if left.spent if any_ours else left.time_is_up:
                    raise self._standstill()
                if not any_ours:
                    continue
                if self.stalled is not None:
                    raise self.stalled
                asked = True
                lacking = self._ask_ours(ours, budgets=left)
            if lacking:
                # What is left is looked at anew before anything else.
                break
        return asked

    def _ask_ours(self, ours: Claimed[AnyRequest], *, budgets: Budgets) -> bool:
        """Ask for claimed requests and take stock of how that ended; whether some are still missing."""
        died = self._ask(ours, budgets=budgets)
        self._remember_refusals()
        self.result.teacher_tokens = read_counts(self.order.ledger).fill - self.spent_before
        lacking = ours.lacking(self.result.failed)
        gained = len(ours) - len(lacking)
        self.suspects.answered |= gained > 0
        leads_on = self._suspect(ours, died, lacking)
        self.stalled = None if gained or leads_on else died or self._standstill()
        self.own += gained
        self.missing -= gained
        return bool(lacking)

    def _ask(self, ours: Claimed[AnyRequest], *, budgets: Budgets) -> EngineError | None:
        """Hand requests to the engines and count what it cost; the answer is how the engines died, if they did."""
        result = self.result
        try:
            done = self.engines.fill(
                iter(ours),
                ours.work.order,
                progress=self._onward(),
                token_budget=budgets.teacher_tokens,
                seconds_budget=budgets.seconds,
            )
        except EngineError as error:
            # Dead engines report nothing any more.
            kept = ours.kept()
            result.response_tokens += kept.response_tokens
            result.rows += kept.rows
            logger.warning("%s; starting new engines for what is still missing", error)
            return error
        result.response_tokens += done.response_tokens
        result.rows += done.committed_rows
        result.stored_bytes += done.committed_bytes
        result.failed |= {ours.at(position): reason for position, reason in done.failures}
        return None

    def _suspect(self, ours: Claimed[AnyRequest], died: EngineError | None, lacking: Mapping[int, AnyRequest]) -> bool:
        """Learn from how the engines ended which rows kill them; whether that alone is reason enough to go on.

        Raises:
            EngineError: engines die whatever they are asked, or died too often.
        """
        if isinstance(died, MemoryRanOutError):
            return True
        if isinstance(died, EnginesDiedError):
            under_way = [lacking[at] for at in died.under_way if at in lacking]
            try:
                return self.suspects.died(ours.requests, under_way, died)
            finally:
                self._set_aside()
        if died is None:
            self.suspects.survived(ours.requests)
        return False

    def _remember_refusals(self) -> None:
        """Keep what could not be answered at once, because whoever is killed later would ask again."""
        if self.known is not None:
            elsewhere = {*self.suspects.guilty, *self.unasked}
            self.known.add({row: why for row, why in self.result.failed.items() if row not in elsewhere})

    def _set_aside(self, *, ended: bool = False) -> None:
        """Ask no more for what was found guilty. It is remembered once it is sure that not every row kills."""
        self.result.failed |= self.suspects.guilty
        if self.known is not None and (ended or self.suspects.answered):
            self.known.add(self.suspects.guilty)

    def _onward(self) -> _Onward:
        """The bar of the whole fill as an engine pool moves it on from here."""
        return _Onward(self.progress, rows=self.total - self.missing, tokens=self.result.response_tokens)

    def _standstill(self) -> DistillError:
        """Why a fill ends before all rows are there."""
        if self.budgets.teacher_tokens is None and self.budgets.seconds is None:
            return EngineError(f"the engines ended with {self.missing:,} rows still missing; see their logs")
        return BudgetReached(
            f"the experiment's budget is spent and {self.missing:,} rows are still missing; what was bought is in the "
            "cache: raise budgets.max_teacher_tokens or budgets.max_gpu_hours and run again"
        )


@dataclass(frozen=True, slots=True)
class _Onward:
    """The progress of a whole fill, to which an engine pool reports only its own pass."""

    inner: ProgressSink
    rows: int
    tokens: int

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        self.inner.update(self.rows + done, tokens=self.tokens + (tokens or 0), note=note)
