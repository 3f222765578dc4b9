"""Fill the cache: ask the teacher for what is missing, and for nothing else.

Completions are written first, then sequences are scored. An engine that dies costs what it had not committed; the
fill then starts new engines and asks for what is still missing, as long as that makes progress.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cache import ScoreRequest, TeacherCache, TeacherRecord
from cache.keys import sequence_key
from configs import BudgetReached, EngineError
from orchestration.console import StageProgress
from orchestration.fill_shift import FillOrder, Progress
from orchestration.plan import FillPlan, Request, SequenceSet, plan_fill

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
        """Work through `work` and commit the records."""
        ...


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits of a fill; None is no limit."""

    teacher_tokens: int | None
    seconds: float | None


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
    sets = [part.sequences for part in plan.sets]
    _store_gold_text(sets, cache=cache, order=order, vocab=vocab)
    misses = plan.misses
    while work := _next_work(sets, cache=cache, failed=result.failed):
        try:
            _ask(work, result=result, engines=engines, order=order, budgets=budgets, progress=progress)
        except EngineError as error:
            logger.warning("%s", error)
            remaining = _misses(sets, cache=cache)
            if remaining >= misses:
                raise
            misses = remaining
            logger.warning("starting new engines for the %d rows that are still missing", remaining)
            continue
        still = _misses(sets, cache=cache) - len(result.failed)
        if still >= misses:
            _explain_standstill(still, budgets)
        misses = still
    return result


@dataclass(frozen=True, slots=True)
class _Work:
    scoring: bool
    k: int
    requests: tuple[Request, ...]


def _next_work(sets: Sequence[SequenceSet], *, cache: TeacherCache, failed: dict[Request, str]) -> _Work | None:
    """The misses of the first kind that is still open: completions of one k, then scores of one k."""
    cache.refresh()
    open_sets = [part for part in plan_fill(sets, cache=cache).sets if part.asks_teacher]
    for scoring in (False, True):
        for k in sorted({part.sequences.k for part in open_sets}):
            wanted: dict[Request, None] = {}
            for part in open_sets:
                if part.sequences.k == k:
                    found = (
                        [r for _, r in part.missing.score]
                        if scoring
                        else [part.sequences.requests[i] for i in part.missing.generate]
                    )
                    wanted |= dict.fromkeys(request for request in found if request not in failed)
            if wanted:
                return _Work(scoring, k, tuple(wanted))
    return None


def _ask(
    work: _Work,
    *,
    result: FillResult,
    engines: Engines,
    order: FillOrder,
    budgets: Budgets,
    progress: StageProgress,
) -> None:
    left = None if budgets.teacher_tokens is None else budgets.teacher_tokens - result.teacher_tokens
    done = engines.fill(
        list(enumerate(work.requests)),
        FillOrder(work.scoring, order.cache_root, work.k, order.commit_every_s, order.licence, order.provenance),
        progress=progress,
        token_budget=left,
        seconds_budget=budgets.seconds,
    )
    result.teacher_tokens += done.forward_tokens
    result.response_tokens += done.response_tokens
    result.rows += done.committed_rows
    result.stored_bytes += done.committed_bytes
    result.failed |= {work.requests[position]: reason for position, reason in done.failures}


def _misses(sets: Sequence[SequenceSet], *, cache: TeacherCache) -> int:
    cache.refresh()
    return plan_fill(sets, cache=cache).misses


def _explain_standstill(still: int, budgets: Budgets) -> None:
    if budgets.teacher_tokens is not None or budgets.seconds is not None:
        raise BudgetReached(
            f"the budget is spent and {still:,} rows are still missing; what was bought is in the cache: "
            "raise budgets.max_teacher_tokens or budgets.max_gpu_hours and run again"
        )
    raise EngineError(f"the engines ended with {still:,} rows still missing; see their logs")


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
