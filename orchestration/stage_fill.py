"""The fill of a run: ask a teacher for what the cache lacks, then pin what its pupils will read."""

from __future__ import annotations

from cache import GenerateRequest, TeacherCache
from configs.places import absolute_root
from orchestration.budgets import budgets_left
from orchestration.context import Run, Teacher
from orchestration.fill import FillResult, fill
from orchestration.fill_shift import FillOrder
from orchestration.lessons import Lesson, pin_lesson
from orchestration.plan import FillPlan
from orchestration.prompts import PromptSet, Rejected
from orchestration.ray_pool import EnginePool

CHECK_PROMPTS = 2


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
    prompts = rejected_of(prompts, result)
    prompts.write_rejected(run.directory / "rejected.jsonl")
    if result.failed:
        run.console.warn(f"{len(result.failed)} requests could not be answered; see rejected.jsonl")
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
            stage.update(0, note="importing vLLM, loading weights, comparing with transformers")
            pool.check(_some_prompts(plan), stop_ids=teacher.files.stop_ids, bos_id=teacher.files.leading_bos)
            stage.summary = f"{config.runtime.teacher_engine.count} up, agree with a plain forward pass"
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


def rejected_of(prompts: PromptSet, result: FillResult) -> PromptSet:
    """The prompts with the rows that the teacher could not answer added to those set aside."""
    known = {prompt.prompt_ids: (split, prompt) for split, rows in prompts.splits.items() for prompt in rows}
    failures = []
    for request, reason in result.failed.items():
        asked = request.prompt_ids if isinstance(request, GenerateRequest) else request.token_ids[: request.prompt_len]
        split, prompt = known[asked]
        failures.append(Rejected(split, prompt.row, reason, prompt.text))
    return PromptSet(prompts.splits, (*prompts.rejected, *failures))


def _summary(plan: FillPlan, result: FillResult) -> str:
    if not plan.misses:
        return "nothing to ask: every row is in the cache"
    text = f"{result.rows:,} new rows, {result.response_tokens:,} response tokens"
    return f"{text}, {result.from_others:,} rows fetched by another pipeline" if result.from_others else text


def _some_prompts(plan: FillPlan) -> list[tuple[int, ...]]:
    requests = [request for part in plan.sets for request in part.sequences.requests]
    prompts = [r.prompt_ids if isinstance(r, GenerateRequest) else r.token_ids for r in requests]
    return prompts[:CHECK_PROMPTS]
