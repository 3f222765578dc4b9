"""What a wider context of a task's teacher may be, beside how it answers and what students take from inside it.

A teacher with a head reads more text and cannot be told anything; one that writes can. Whoever takes states of single
places from the cache takes those of the first token alone, which every reading has.
"""

from __future__ import annotations

from collections.abc import Mapping

from configs.task_stages import TaskStageConfig, TaskStudentConfig
from configs.teacher_context import TeacherContext
from configs.teachers import Combination, TeacherRoute

KEY = "teacher_context"
"""Of the experiment."""


def require_context(
    context: TeacherContext | None,
    *,
    answers: str,
    calibrated: bool,
    drawn_gold: bool,
    combine: Combination | None,
    students: Mapping[str, TaskStudentConfig],
) -> None:
    """Refuse a context that the teacher cannot be shown, or from which students cannot learn.

    `answers` says by what the teacher does, `drawn_gold` whether the gold labels of some train rows are left out.

    Raises:
        ValueError: naming the key, both sides and the cure.
    """
    if context is None:
        return
    more = "passage_field" if context.passage_field is not None else "neighbours"
    if answers == "head":
        _require_text_alone(context)
    elif calibrated and (context.neighbours is not None or context.passage_field is not None):
        raise ValueError(
            f"{KEY}.{more} stands beside every row, and teacher.calibrated=true divides by questions without content, "
            "which have none: set calibrated: false"
        )
    if context.examples is not None and drawn_gold:
        raise ValueError(
            f"{KEY}.examples shows gold labels of train rows, and data.gold leaves some of them out: set "
            "data.train.limit in the task, or remove one"
        )
    if isinstance(combine, TeacherRoute):
        raise ValueError(
            f"combine.kind=route gives each row a teacher of its own, and {KEY} is shown to all of them: set kind: "
            "mixture, or remove one"
        )
    for name, student in students.items():
        for number, stage in enumerate(student.stages):
            _require_kept(f"students.{name}.stages.{number}", stage)


def context_in_words(context: TeacherContext | None) -> str:
    """What a teacher sees that its students never do; "" of one that sees what they do."""
    if context is None:
        return ""
    parts = []
    if context.system_prompt is not None:
        parts.append("an instruction")
    if context.examples is not None:
        parts.append(f"{context.examples.count} worked examples")
    if context.passage_field is not None:
        parts.append(f"the passage in {context.passage_field}")
    if context.neighbours is not None:
        around = context.neighbours
        sides = ((around.before, "before"), (around.after, "after"))
        rows = " and ".join(f"{count} {side}" for count, side in sides if count)
        within = "" if around.within is None else f" of the same {around.within}"
        parts.append(f"the rows{within} around it ({rows})")
    return f"beside each row the teacher sees {', '.join(parts)}; students see the row alone"


def _require_text_alone(context: TeacherContext) -> None:
    """Refuse what nobody can say to a model that reads text and answers by its head."""
    for key in ("system_prompt", "examples"):
        if getattr(context, key) is not None:
            raise ValueError(
                f"{KEY}.{key} tells a language model what to do, and teacher.answers=head reads texts and is told "
                "nothing: remove it, or set answers: labels or text"
            )


def _require_kept(key: str, stage: TaskStageConfig) -> None:
    """Refuse a stage whose teacher reads the student's own rows, or whose states are of places that differ."""
    if stage.reads_live:
        what = "teacher=live" if stage.teacher == "live" else "features of every token"
        raise ValueError(
            f"{key} has {what}, for which the teacher reads the student's own rows beside it, and {KEY} shows it more: "
            "learn what the cache keeps, or remove one"
        )
    for number, term in enumerate(stage.features):
        if term.where != "first":
            raise ValueError(
                f"{key}.features.{number} takes states at place={term.where}, which lies elsewhere in what {KEY} shows "
                "the teacher: set place: first, or remove one"
            )
