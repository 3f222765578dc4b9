"""Fill the cache: ask the teacher for what is missing, and for nothing else.

Completions are written first, then sequences are scored. An engine that dies costs what it had not committed; the
fill then starts new engines and asks for what is still missing, as long as that makes progress. Rows that another
pipeline is asking for are left to it: they are waited for, and asked for here only if it ends without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.claims import Claims
from cache.disk.roots import open_storage
from cache.keys import generation_key, sequence_key
from configs import BudgetReached, DistillError, EngineError
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.ledger import read_counts
from orchestration.outputs.console import ProgressSink
from orchestration.plan.requests import FillPlan, SequenceSet, SetPlan, plan_fill

POLL_S = 1.0
"""How often a fill looks whether another pipeline has committed the rows that it waits for."""

logger = logging.getLogger(__name__)


class Engines(Protocol):
    """The engines of a fill (`engine_pool.EnginePool`)."""

    def fill(
        self,
        work: Sequence[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """Work through `work` within the budgets and commit the records.

        Raises:
            EngineError: engines died; what they had committed before is kept.
        """
        ...


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
class FillResult:
    """What a fill did.

    `teacher_tokens` are those of the experiment's ledger: also what engines spent that died before they could report.
    `failed` maps a request to the reason why the teacher could not answer it, now or before; `from_others` counts the
    misses that another pipeline fetched meanwhile.
    """

    teacher_tokens: int = 0
    response_tokens: int = 0
    rows: int = 0
    stored_bytes: int = 0
    from_others: int = 0
    failed: dict[Request, str] = field(default_factory=dict)


def fill(
    plan: FillPlan,
    *,
    cache: TeacherCache,
    engines: Engines,
    order: FillOrder,
    budgets: Budgets,
    vocab: int,
    progress: ProgressSink,
) -> FillResult:
    """Ask for every miss of `plan` that no other pipeline is asking for, and wait for those that one is.

    Raises:
        BudgetReached: a budget ended the fill before all rows were there.
        EngineError: engines kept dying without making progress.
        CacheError: the cache cannot be read or written.
    """
    result = FillResult(failed=plan.refused)
    started, spent_before = time.monotonic(), read_counts(order.ledger).fill
    sets = [part.sequences for part in plan.sets]
    _store_gold_text(sets, cache=cache, order=order, vocab=vocab)
    claims = Claims(open_storage(order.cache_root, cache.identity.digest(), create=False))
    total = own = 0
    stalled: DistillError | None = None
    while works := _open_work(sets, cache=cache, failed=result.failed):
        looked = time.monotonic()
        missing = sum(len(work.requests) for work in works)
        total = max(total, missing)
        bar = _Onward(progress, rows=total - missing, tokens=result.response_tokens)
        left = budgets.after(result.teacher_tokens, seconds=looked - started)
        with _own_part(works, cache=cache, claims=claims) as part:
            # Waiting takes no tokens, but it takes time, in which our engines stay up.
            if left.spent if part else left.time_is_up:
                raise _standstill(missing, budgets)
            if part is not None:
                if stalled is not None:
                    raise stalled
                died = _ask(part, result=result, engines=engines, order=order, budgets=left, progress=bar, cache=cache)
                result.teacher_tokens = read_counts(order.ledger).fill - spent_before
                gained = len(part.requests) - len(_still_missing(part, cache=cache, failed=result.failed))
                stalled = None if gained else died or _standstill(missing, budgets)
                own += gained
        if part is None:
            bar.update(0, note=f"waiting for {missing:,} rows that another pipeline is fetching")
            # Looking at a large plan takes seconds of CPU time, which the pipeline that fetches may need more.
            time.sleep(max(POLL_S, time.monotonic() - looked))
    result.from_others = max(total - own, 0)
    return result


@dataclass(frozen=True, slots=True)
class _Onward:
    """The progress of a whole fill, to which an engine pool reports only its own pass."""

    inner: ProgressSink
    rows: int
    tokens: int

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        self.inner.update(self.rows + done, tokens=self.tokens + (tokens or 0), note=note)


@dataclass(frozen=True, slots=True)
class _Work:
    scoring: bool
    k: int
    requests: tuple[Request, ...]


def _open_work(sets: Sequence[SequenceSet], *, cache: TeacherCache, failed: Mapping[Request, str]) -> list[_Work]:
    """What is still to be asked: completions of one k after another, then scores of one k after another."""
    cache.refresh()
    open_sets = [part for part in plan_fill(sets, cache=cache).sets if part.asks_teacher]
    works = []
    for scoring in (False, True):
        for k in sorted({part.sequences.k for part in open_sets}):
            wanted: dict[Request, None] = {}
            for part in open_sets:
                if part.sequences.k == k:
                    wanted |= dict.fromkeys(r for r in _missing(part, scoring=scoring) if r not in failed)
            if wanted:
                works.append(_Work(scoring, k, tuple(wanted)))
    return works


@contextmanager
def _own_part(works: Sequence[_Work], *, cache: TeacherCache, claims: Claims) -> Iterator[_Work | None]:
    """Requests that no other pipeline asks for, claimed while the context lasts; None where there are none.

    They are those of the first work that has any.
    """
    identity = cache.identity.digest()
    for work in works:
        names = [_name(request, identity=identity) for request in work.requests]
        k = work.k if work.scoring else 0
        free = np.flatnonzero(~claims.held(names, k=k))
        if not len(free):
            continue
        with claims.claim([names[at] for at in free], k=k) as claim:
            part = replace(work, requests=tuple(work.requests[at] for at in free[claim.mine]))
            # Before the claim was made another pipeline may have asked for these rows and committed them.
            part = replace(part, requests=tuple(_still_missing(part, cache=cache, failed={})))
            if part.requests:
                yield part
                return
    yield None


def _name(request: Request, *, identity: str) -> bytes:
    if isinstance(request, GenerateRequest):
        return generation_key(identity, request)
    return sequence_key(identity, request.token_ids, request.prompt_len)


def _still_missing(work: _Work, *, cache: TeacherCache, failed: Mapping[Request, str]) -> list[Request]:
    """The requests of `work` that are neither answered nor known to fail."""
    cache.refresh()
    missing = cache.missing(work.requests, k=work.k)
    positions = [position for position, _ in missing.score] if work.scoring else missing.generate
    return [work.requests[position] for position in positions if work.requests[position] not in failed]


def _missing(part: SetPlan, *, scoring: bool) -> list[Request]:
    if scoring:
        return [request for _, request in part.missing.score]
    return [part.sequences.requests[position] for position in part.missing.generate]


def _ask(
    work: _Work,
    *,
    result: FillResult,
    cache: TeacherCache,
    engines: Engines,
    order: FillOrder,
    budgets: Budgets,
    progress: ProgressSink,
) -> EngineError | None:
    """Ask for `work` and count what it cost; the answer is how the engines died, if they did."""
    try:
        done = engines.fill(
            list(enumerate(work.requests)),
            replace(order, scoring=work.scoring, k=work.k),
            progress=progress,
            token_budget=budgets.teacher_tokens,
            seconds_budget=budgets.seconds,
        )
    except EngineError as error:
        _count_committed(work, result=result, cache=cache)
        logger.warning("%s; starting new engines for what is still missing", error)
        return error
    result.response_tokens += done.response_tokens
    result.rows += done.committed_rows
    result.stored_bytes += done.committed_bytes
    result.failed |= {work.requests[position]: reason for position, reason in done.failures}
    return None


def _count_committed(work: _Work, *, result: FillResult, cache: TeacherCache) -> None:
    """Count what dead engines had committed of `work`: they report nothing any more."""
    cache.refresh()
    keys = [key for key in cache.lookup(work.requests, k=work.k) if key is not None]
    records = [record for record in cache.get_many(keys, k=0) if record is not None]
    result.response_tokens += sum(record.response_len for record in records)
    result.rows += len(records)


def _standstill(missing: int, budgets: Budgets) -> DistillError:
    if budgets.teacher_tokens is None and budgets.seconds is None:
        return EngineError(f"the engines ended with {missing:,} rows still missing; see their logs")
    return BudgetReached(
        f"the experiment's budget is spent and {missing:,} rows are still missing; what was bought is in the cache: "
        "raise budgets.max_teacher_tokens or budgets.max_gpu_hours and run again"
    )


def _store_gold_text(sets: Sequence[SequenceSet], *, cache: TeacherCache, order: FillOrder, vocab: int) -> None:
    """Gold answers that need no scores are kept as text, without asking the teacher."""
    identity = cache.identity.digest()
    records = []
    for part in plan_fill(sets, cache=cache).sets:
        if part.sequences.k == 0:
            records += [_text_record(identity, request) for _, request in part.missing.score]
    if records:
        cache.put(records, vocab=vocab, licence=order.licence, provenance=order.provenance)


def _text_record(identity: str, request: ScoreRequest) -> TeacherRecord:
    token_ids = np.asarray(request.token_ids, dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(identity, token_ids, request.prompt_len),
        token_ids=token_ids,
        prompt_len=request.prompt_len,
        finish="given",
        origin="prefill",
    )
