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
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.fill_stage import AskedTeacher, fill_and_pin
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.plan.requests import plan_fill, sequence_sets


def assistant_lesson(
    assistant: Student, *, settings: RunSettings, journal: Journal, compute: Compute, prompts: PromptSet
) -> tuple[Lesson, PromptSet]:
    """What a trained student says to those it teaches; starts no engine when its cache holds everything.

    It sees what they see, whatever its own teacher was shown beside that. Returns the prompts with the rows that it
    could not answer set aside.
    """
    config, name, prompts = settings.config, assistant.name, prompts.as_students_see()
    files = open_model(assistant.directory, label=name)
    teacher = Teacher(files, identity_of(files, config=config, dtype=assistant.dtype))
    cache = open_cache(config, teacher)
    sets = sequence_sets(config, prompts.splits, stop_ids=files.stop_ids, plain=prompts.plain, assistant=name)
    plan = plan_fill(sets, cache=cache, refused=open_refusals(config.runtime, teacher.identity, k=config.teacher.top_k))
    journal.console.say(f"{name} now teaches; {plan.misses:,} rows are not in its cache.")
    pool = compute.teacher_pool(teacher)
    try:
        return fill_and_pin(
            AskedTeacher(teacher, cache, pool, plan),
            settings=settings,
            journal=journal,
            compute=compute,
            prompts=prompts,
            assistant=name,
        )
    finally:
        pool.release()
