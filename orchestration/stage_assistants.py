"""Teacher assistants: a trained student is asked as if it were the teacher, and cached under an identity of its own.

Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant" (arXiv 1902.03393): where teacher and student
are far apart, one of a size between the two learns first and teaches the small one.
"""

from __future__ import annotations

from orchestration.context import Run, Teacher, identity_of, open_cache
from orchestration.lessons import Lesson, pin_lesson
from orchestration.models import open_model
from orchestration.plan import plan_fill, sequence_sets
from orchestration.prompts import PromptSet
from orchestration.stage_fill import fill_stage
from orchestration.students import Student


def assistant_lesson(run: Run, assistant: Student, *, prompts: PromptSet) -> Lesson:
    """What a trained student says to those it teaches; starts no engine when its cache holds everything."""
    config = run.config
    files = open_model(assistant.directory, label=assistant.name)
    teacher = Teacher(files, identity_of(files, config=config, quantization=None))
    cache = open_cache(config, teacher)
    sets = sequence_sets(config, prompts.splits, stop_ids=files.stop_ids, assistant=assistant.name)
    plan = plan_fill(sets, cache=cache)
    run.console.say(f"{assistant.name} now teaches; {plan.misses:,} rows are not in its cache.")
    if run.student_pool is not None:
        run.student_pool[1].release()
        run.student_pool = None
    pool = run.pool(files, teacher.identity, settings=config.runtime.teacher_engine, k=config.teacher.top_k)
    try:
        result = fill_stage(run, plan, teacher=teacher, cache=cache, pool=pool)
    finally:
        pool.release()
    if result.failed:
        run.console.warn(f"{len(result.failed)} requests could not be answered by {assistant.name}")
    cache.refresh()
    return pin_lesson(
        run,
        sets,
        teacher=teacher,
        cache=cache,
        stages=config.stages_taught_by(assistant.name),
        prompts=prompts.splits["train"],
        folder=run.directory / "views" / assistant.name,
    )
