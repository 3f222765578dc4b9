"""Fill the cache: ask the teacher for what is missing, and for nothing else.

What that is, `WantedRows` says: sequences, or signals. An engine that dies costs what it had not committed; the fill
then starts new engines and asks for what is still missing, as long as that makes progress, and finds out which row they
die of (`suspects`). Rows that another pipeline
is asking for are left to it: they are waited for, and asked for here only if it ends without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic

import numpy as np

from cache import SignalRequest, TeacherCache
from cache.answers import Request
from cache.claims import Claims
from cache.disk.roots import open_storage
from cache.failures import Failures
from configs import BudgetReached, DistillError, EngineError
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.ledger import read_counts
from orchestration.fill.sequences import WantedSequences
from orchestration.fill.signals import WantedSignals
from orchestration.fill.suspects import Suspects
from orchestration.fill.work import AnyRequest, Engines, EnginesDiedError, MemoryRanOutError, WantedRows, Work
from orchestration.outputs.console import ProgressSink
from orchestration.plan.requests import FillPlan
from orchestration.plan.signal_requests import SignalPlan

LOT = 262_144
"""Requests that engines are handed at once; of all others a fill holds only the places."""

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
    return _fill(
        wanted, FillResult(failed=plan.refused), engines=engines, order=order, budgets=budgets, progress=progress
    )


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
    return _fill(
        wanted, FillResult(failed=plan.refused), engines=engines, order=order, budgets=budgets, progress=progress
    )


def _fill(
    wanted: WantedRows[AnyRequest],
    result: FillResult[AnyRequest],
    *,
    engines: Engines[AnyRequest],
    order: FillOrder,
    budgets: Budgets,
    progress: ProgressSink,
) -> FillResult[AnyRequest]:
    started, spent_before = time.monotonic(), read_counts(order.ledger).fill
    storage = open_storage(order.cache_root, wanted.identity, create=False)
    claims = Claims(storage)
    # What nobody asks (`orchestration.fill.refusals`) was remembered where it was decided.
    unasked = frozenset(result.failed)
    known = None if order.engine is None else Failures(storage, identity=wanted.identity, engine=order.engine)
    total = own = 0
    stalled: DistillError | None = None
    suspects = Suspects[AnyRequest]()
    while opened := wanted.open_work(result.failed):
        looked = time.monotonic()
        missing = sum(len(work.requests) for work in opened)
        total = max(total, missing)
        asked = False
        for lot in _lots(suspects.narrow(opened)):
            bar = _Onward(progress, rows=total - missing, tokens=result.response_tokens)
            left = budgets.after(result.teacher_tokens, seconds=time.monotonic() - started)
            with _own_part(lot, wanted=wanted, claims=claims) as part:
                # Waiting takes no tokens, but it takes time, in which our engines stay up.
                if left.spent if part else left.time_is_up:
                    raise _standstill(missing, budgets)
                if part is None:
                    continue
                if stalled is not None:
                    raise stalled
                asked = True
                died = _ask(part, result=result, wanted=wanted, engines=engines, budgets=left, progress=bar)
                if known is not None:
                    # At once, because whoever is killed later would ask again.
                    known.add(
                        {row: why for row, why in result.failed.items() if row not in {*suspects.guilty, *unasked}}
                    )
                result.teacher_tokens = read_counts(order.ledger).fill - spent_before
                lacking = _still_missing(part, wanted=wanted, failed=result.failed)
                gained = len(part.requests) - len(lacking)
                suspects.answered |= gained > 0
                stalled = None if gained else died or _standstill(missing, budgets)
                if isinstance(died, MemoryRanOutError):
                    stalled = None
                elif isinstance(died, EnginesDiedError):
                    try:
                        if suspects.died(part.requests, _under_way(part, died, lacking), died):
                            stalled = None
                    finally:
                        _set_aside(suspects, result=result, known=known)
                elif died is None:
                    suspects.survived(part.requests)
                own += gained
                missing -= gained
            if lacking:
                # What is left of a lot is looked at anew before any other.
                break
        if not asked:
            progress_note = f"waiting for {missing:,} rows that another pipeline is fetching"
            _Onward(progress, rows=total - missing, tokens=result.response_tokens).update(0, note=progress_note)
            # Looking at a large plan takes seconds of CPU time, which the pipeline that fetches may need more.
            time.sleep(max(POLL_S, time.monotonic() - looked))
    _set_aside(suspects, result=result, known=known, ended=True)
    result.from_others = max(total - own - len(suspects.guilty), 0)
    return result


def _under_way(part: Work[AnyRequest], died: EnginesDiedError, lacking: Collection[AnyRequest]) -> list[AnyRequest]:
    """What engines had been handed when they died and nobody has answered."""
    unanswered = set(lacking)
    return [part.requests[at] for at in died.under_way if part.requests[at] in unanswered]


def _set_aside(
    suspects: Suspects[AnyRequest], *, result: FillResult[AnyRequest], known: Failures | None, ended: bool = False
) -> None:
    """Ask no more for what was found guilty. It is remembered once it is sure that not every row kills."""
    result.failed |= suspects.guilty
    if known is not None and (ended or suspects.answered):
        known.add(suspects.guilty)


@dataclass(frozen=True, slots=True)
class _Onward:
    """The progress of a whole fill, to which an engine pool reports only its own pass."""

    inner: ProgressSink
    rows: int
    tokens: int

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        self.inner.update(self.rows + done, tokens=self.tokens + (tokens or 0), note=note)


def _lots(works: Sequence[Work[AnyRequest]]) -> Iterator[Work[AnyRequest]]:
    """The requests of all works in their order, so many at a time as are held."""
    for work in works:
        for at in range(0, len(work.requests), LOT):
            yield replace(work, requests=work.requests[at : at + LOT])


@contextmanager
def _own_part(
    lot: Work[AnyRequest], *, wanted: WantedRows[AnyRequest], claims: Claims
) -> Iterator[Work[AnyRequest] | None]:
    """Requests of a lot that no other pipeline asks for, claimed while the context lasts; None where there are none."""
    names, k = wanted.names(lot.requests), lot.claimed_k
    free = np.flatnonzero(~claims.held(names, k=k))
    if not len(free):
        yield None
        return
    with claims.claim([names[at] for at in free], k=k) as claim:
        part = replace(lot, requests=tuple(lot.requests[at] for at in free[claim.mine]))
        # Before the claim was made another pipeline may have asked for these rows and committed them.
        part = replace(part, requests=tuple(_still_missing(part, wanted=wanted, failed=())))
        yield part if part.requests else None


def _still_missing(
    work: Work[AnyRequest], *, wanted: WantedRows[AnyRequest], failed: Collection[AnyRequest]
) -> list[AnyRequest]:
    """The requests of `work` that are neither answered nor known to fail."""
    return [request for request in wanted.missing(work) if request not in failed]


def _ask(
    work: Work[AnyRequest],
    *,
    result: FillResult[AnyRequest],
    wanted: WantedRows[AnyRequest],
    engines: Engines[AnyRequest],
    budgets: Budgets,
    progress: ProgressSink,
) -> EngineError | None:
    """Ask for `work` and count what it cost; the answer is how the engines died, if they did."""
    try:
        done = engines.fill(
            list(enumerate(work.requests)),
            work.order,
            progress=progress,
            token_budget=budgets.teacher_tokens,
            seconds_budget=budgets.seconds,
        )
    except EngineError as error:
        # Dead engines report nothing any more.
        kept = wanted.kept(work)
        result.response_tokens += kept.response_tokens
        result.rows += kept.rows
        logger.warning("%s; starting new engines for what is still missing", error)
        return error
    result.response_tokens += done.response_tokens
    result.rows += done.committed_rows
    result.stored_bytes += done.committed_bytes
    result.failed |= {work.requests[position]: reason for position, reason in done.failures}
    return None


def _standstill(missing: int, budgets: Budgets) -> DistillError:
    if budgets.teacher_tokens is None and budgets.seconds is None:
        return EngineError(f"the engines ended with {missing:,} rows still missing; see their logs")
    return BudgetReached(
        f"the experiment's budget is spent and {missing:,} rows are still missing; what was bought is in the cache: "
        "raise budgets.max_teacher_tokens or budgets.max_gpu_hours and run again"
    )
