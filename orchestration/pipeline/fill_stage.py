"""The fill of a run: ask a teacher for what the cache lacks, then pin what its pupils will read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache import GenerateRequest, TeacherCache
from configs.places import absolute_root
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.reference import kept_reference
from orchestration.fill.budgets import budgets_left
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import FillResult, fill
from orchestration.fill.refusals import open_refusals
from orchestration.inputs.prompts import PromptSet, Rejected
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.console import Progress
from orchestration.pipeline.lessons import Lesson, pin_lesson
from orchestration.pipeline.run import Run
from orchestration.plan.requests import FillPlan, Request, SequenceSet
from teacher_server.reference import NoReferenceError, ReferenceRows
from teacher_server.startup_check import check_prompts, reference_dtype, weight_bytes

CHECK_PROMPTS = 2
"""Prompts on which engines are compared with a plain forward pass."""

LARGE_BYTES = 64 * 2**30
"""Of weights; beyond it one prompt has to do, because reading them all takes the reference minutes."""


def lesson_stage(
    run: Run,
    plan: FillPlan,
    *,
    teacher: Teacher,
    cache: TeacherCache,
    pool: EnginePool,
    prompts: PromptSet,
    assistant: str | None = None,
) -> tuple[Lesson, PromptSet]:
    """Fill the cache of the teacher (or of the student `assistant`) and pin the lesson.

    Returns the prompts with the rows that could not be answered set aside.

    Raises:
        CacheError: a set has no row at all.
        DataError: filters leave no row.
    """
    result = fill_stage(run, plan, teacher=teacher, cache=cache, pool=pool)
    cache.refresh()
    before = len(prompts.rejected)
    prompts = without_refused(prompts, [part.sequences for part in plan.sets], failed=result.failed)
    written = run.directory / ("rejected.jsonl" if assistant is None else f"rejected-{assistant}.jsonl")
    prompts.write_rejected(written)
    if result.failed:
        refusals = open_refusals(run.config, teacher)
        refusals.add(result.failed)
        run.console.warn(
            f"{len(prompts.rejected) - before} rows could not be answered, see {written}; nobody is asked for them "
            f"again unless the engine changes or {refusals.path} is removed"
        )
    lesson = pin_lesson(
        run,
        [part.sequences for part in plan.sets],
        teacher=teacher,
        cache=cache,
        stages=run.config.stages_taught_by(assistant),
        prompts=prompts.splits["train"],
        folder=run.directory / "views" / (assistant or ""),
    )
    return lesson, prompts


def fill_stage(run: Run, plan: FillPlan, *, teacher: Teacher, cache: TeacherCache, pool: EnginePool) -> FillResult:
    """Ask the teacher for what is missing; starts no engine when nothing is."""
    config = run.config
    if plan.asks_teacher:
        run.need_cluster()
        with run.console.stage("teacher engine") as stage:
            stage.update(0, note="importing vLLM, loading weights")
            compared = _check(run, plan, teacher=teacher, pool=pool, stage=stage)
            stage.summary = f"{config.runtime.teacher_engine.count} up, {compared}"
    with run.console.stage("fill", total=plan.misses, unit="rows") as stage:
        result = fill(
            plan,
            cache=cache,
            engines=pool,
            order=FillOrder(
                scoring=False,
                cache_root=absolute_root(config.runtime.cache_root),
                k=config.teacher.top_k,
                commit_every_s=config.runtime.commit_every_s,
                licence=config.teacher.licence,
                provenance=teacher.provenance(config),
                ledger=run.ledger.directory.absolute(),
                encoding=config.teacher.encoding,
            ),
            budgets=budgets_left(config.budgets, spent=run.ledger.counts(), engines=config.runtime.teacher_engine),
            vocab=teacher.files.vocab,
            progress=stage,
        )
        stage.summary = _summary(plan, result)
    return result


def without_refused(prompts: PromptSet, sets: Sequence[SequenceSet], *, failed: Mapping[Request, str]) -> PromptSet:
    """The prompts without those that the teacher could answer in no way, and what it could not answer set aside.

    A row is set aside once, however many samples of it were asked. One that has at least one of its sequences stays.
    """
    wanted = Counter(_prompt_of(request) for request in {each for part in sets for each in part.requests})
    refused: dict[tuple[int, ...], list[str]] = {}
    for request, reason in failed.items():
        refused.setdefault(_prompt_of(request), []).append(reason)
    splits, set_aside = {}, []
    for split, rows in prompts.splits.items():
        kept = []
        for row in rows:
            reasons, asked = refused.get(row.prompt_ids, []), wanted[row.prompt_ids]
            if reasons:
                share = f" ({len(reasons)} of its {asked} sequences)" if asked > 1 else ""
                set_aside.append(Rejected(split, row.row, reasons[0] + share, row.text))
            if not reasons or len(reasons) < asked:
                kept.append(row)
        splits[split] = tuple(kept)
    return PromptSet(splits, (*prompts.rejected, *set_aside))


def _prompt_of(request: Request) -> tuple[int, ...]:
    return request.prompt_ids if isinstance(request, GenerateRequest) else request.token_ids[: request.prompt_len]


def _summary(plan: FillPlan, result: FillResult) -> str:
    if not plan.misses:
        return "nothing to ask: every row is in the cache"
    text = f"{result.rows:,} new rows, {result.response_tokens:,} response tokens"
    return f"{text}, {result.from_others:,} rows fetched by another pipeline" if result.from_others else text


def _check(run: Run, plan: FillPlan, *, teacher: Teacher, pool: EnginePool, stage: Progress) -> str:
    """Compare the engines with a plain forward pass; says what came of it."""
    config, files = run.config, teacher.files
    directory = files.directory.resolve()
    large = weight_bytes(directory) > LARGE_BYTES
    requests = (each for part in plan.sets for each in part.sequences.requests if each not in part.refused)
    prompts = check_prompts(
        (r.prompt_ids if isinstance(r, GenerateRequest) else r.token_ids for r in requests),
        bos_id=files.leading_bos,
        max_model_len=config.runtime.teacher_engine.max_model_len,
        count=1 if large else CHECK_PROMPTS,
    )

    def report(done: int, total: int) -> None:
        stage.update(0, note=f"comparing with transformers: {done} of {total} layers")

    def reference(sequences: Sequence[tuple[int, ...]]) -> list[ReferenceRows]:
        stage.update(0, note="comparing with transformers")
        return kept_reference(
            sequences,
            folder=Path(config.runtime.run_root).absolute() / "references" / teacher.identity.digest()[:16],
            model_dir=directory,
            dtype=reference_dtype(directory, served=teacher.identity.dtype),
            log_dir=run.logs,
            report=report,
        )

    try:
        pool.check(prompts, stop_ids=files.stop_ids, bos_id=files.leading_bos, reference=reference)
    except NoReferenceError as error:
        run.console.warn(f"the engines were not compared with a plain forward pass: {error}")
        return "not compared with a plain forward pass"
    sampled = f" on one prompt, for its weights are beyond {LARGE_BYTES / 2**30:.0f} GiB" if large else ""
    return f"agree with a plain forward pass{sampled}"
