"""Teacher assistants: a trained student is asked as if it were the teacher, and cached under an identity of its own.

Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant" (arXiv 1902.03393): where teacher and student
are far apart, one of a size between the two learns first and teaches the small one.
"""

from __future__ import annotations

from orchestration.fill.refusals import open_refusals
from orchestration.inputs.models import open_model
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher, identity_of, open_cache
from orchestration.pipeline.chain import Student
from orchestration.pipeline.fill_stage import lesson_stage
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Run
from orchestration.plan.requests import plan_fill, sequence_sets


def assistant_lesson(run: Run, assistant: Student, *, prompts: PromptSet) -> tuple[Lesson, PromptSet]:
    """What a trained student says to those it teaches; starts no engine when its cache holds everything.

    Returns the prompts with the rows that it could not answer set aside.
    """
    config = run.config
    files = open_model(assistant.directory, label=assistant.name)
    teacher = Teacher(files, identity_of(files, config=config, dtype=assistant.dtype))
    cache = open_cache(config, teacher)
    sets = sequence_sets(config, prompts.splits, stop_ids=files.stop_ids, assistant=assistant.name)
    plan = plan_fill(sets, cache=cache, refused=open_refusals(config, teacher))
    run.console.say(f"{assistant.name} now teaches; {plan.misses:,} rows are not in its cache.")
    pool = run.pool(files, teacher.identity, settings=config.runtime.teacher_engine, k=config.teacher.top_k)
    try:
        return lesson_stage(
            run, plan, teacher=teacher, cache=cache, pool=pool, prompts=prompts, assistant=assistant.name
        )
    finally:
        pool.release()
