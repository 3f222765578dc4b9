"""Fill the cache: ask the teacher for what is missing, and for nothing else.

Completions are written first, then sequences are scored. An engine that dies costs what it had not committed; the
fill then starts new engines and asks for what is still missing, as long as that makes progress.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from cache import ScoreRequest, TeacherCache, TeacherRecord
from cache.keys import sequence_key
from configs import BudgetReached, DistillError, EngineError
from orchestration.console import StageProgress
from orchestration.fill_shift import FillOrder, Progress
from orchestration.plan import FillPlan, Request, SequenceSet, SetPlan, plan_fill

logger = logging.getLogger(__name__)


class Engines(Protocol):
    """The engines of a fill (`ray_pool.EnginePool`)."""

    def fill(
        self,
        work: Sequence[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: StageProgress,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> Progress:
        """Work through `work` within the budgets and commit the records.

        Raises:
            EngineError: engines died; what they had committed before is kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits of a fill; None is no limit."""

    teacher_tokens: int | None
    seconds: float | None

    @property
    def spent(self) -> bool:
        """Whether nothing is left of one of them."""
        return any(limit is not None and limit <= 0 for limit in (self.teacher_tokens, self.seconds))

    def after(self, teacher_tokens: int, *, seconds: float) -> Budgets:
        """What is left after so many tokens and so much time."""
        return Budgets(
            None if self.teacher_tokens is None else self.teacher_tokens - teacher_tokens,
            None if self.seconds is None else self.seconds - seconds,
        )


@dataclass(slots=True)
class FillResult:
    """What a fill did. `failed` maps a request to the reason why the teacher could not answer it."""

    teacher_tokens: int = 0
    response_tokens: int = 0
    rows: int = 0
    stored_bytes: int = 0
    failed: dict[Request, str] = field(default_factory=dict)


def fill(
    plan: FillPlan,
    *,
    cache: TeacherCache,
    engines: Engines,
    order: FillOrder,
    budgets: Budgets,
    vocab: int,
    progress: StageProgress,
) -> FillResult:
    """Ask for every miss of `plan`.

    Raises:
        BudgetReached: a budget ended the fill before all rows were there.
        EngineError: engines kept dying without making progress.
    """
    result = FillResult()
    started = time.monotonic()
    sets = [part.sequences for part in plan.sets]
    _store_gold_text(sets, cache=cache, order=order, vocab=vocab)
    before: int | None = None
    died: EngineError | None = None
    while works := _open_work(sets, cache=cache, failed=result.failed):
        missing = sum(len(work.requests) for work in works)
        left = budgets.after(result.teacher_tokens, seconds=time.monotonic() - started)
        if left.spent:
            raise _standstill(missing, budgets)
        if before is not None and missing >= before:
            raise died or _standstill(missing, budgets)
        before, died = missing, None
        try:
            _ask(works[0], result=result, engines=engines, order=order, budgets=left, progress=progress)
        except EngineError as error:
            died = error
            _count_committed(works[0], result=result, cache=cache)
            logger.warning("%s; starting new engines for what is still missing", error)
    return result


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


def _missing(part: SetPlan, *, scoring: bool) -> list[Request]:
    if scoring:
        return [request for _, request in part.missing.score]
    return [part.sequences.requests[position] for position in part.missing.generate]


def _ask(
    work: _Work,
    *,
    result: FillResult,
    engines: Engines,
    order: FillOrder,
    budgets: Budgets,
    progress: StageProgress,
) -> None:
    done = engines.fill(
        list(enumerate(work.requests)),
        replace(order, scoring=work.scoring, k=work.k),
        progress=progress,
        token_budget=budgets.teacher_tokens,
        seconds_budget=budgets.seconds,
    )
    result.teacher_tokens += done.forward_tokens
    result.response_tokens += done.response_tokens
    result.rows += done.committed_rows
    result.stored_bytes += done.committed_bytes
    result.failed |= {work.requests[position]: reason for position, reason in done.failures}


def _count_committed(work: _Work, *, result: FillResult, cache: TeacherCache) -> None:
    """Dead engines report nothing any more; what they had committed of `work` was paid for all the same."""
    cache.refresh()
    keys = [key for key in cache.lookup(work.requests, k=work.k) if key is not None]
    records = [record for record in cache.get_many(keys, k=0) if record is not None]
    result.teacher_tokens += sum(len(record.token_ids) for record in records)
    result.response_tokens += sum(record.response_len for record in records)
    result.rows += len(records)


def _standstill(missing: int, budgets: Budgets) -> DistillError:
    if budgets.teacher_tokens is None and budgets.seconds is None:
        return EngineError(f"the engines ended with {missing:,} rows still missing; see their logs")
    return BudgetReached(
        f"the budget is spent and {missing:,} rows are still missing; what was bought is in the cache: "
        "raise budgets.max_teacher_tokens or budgets.max_gpu_hours and run again"
    )


def _store_gold_text(sets: Sequence[SequenceSet], *, cache: TeacherCache, order: FillOrder, vocab: int) -> None:
    """Gold answers that nobody scores are kept as text: that asks no teacher."""
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
