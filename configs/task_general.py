"""What the general stages of an experiment that distils a task may be: on plain text, before anything of the task.

A student learns there from its teacher as it is before it is tuned (DistilBERT, Sanh et al. 2019, arXiv 1910.01108; the
first of TinyBERT's two stages, Jiao et al. 2020, arXiv 1909.10351). A teacher has none above it: it learns hidden
tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs.task_objectives import task_objectives_where
from configs.task_stages import GOLD, PLAIN, TRANSFER, TaskStageConfig, TaskStudentConfig
from configs.task_starts import TransformerStart

OF_TEACHER = "teacher.general"
"""The key of the general stages of a teacher."""


def require_of_task(key: str, stage: TaskStageConfig) -> None:
    """Refuse an objective or a set of plain text in a stage of a task.

    Raises:
        ValueError: naming the key and the cure.
    """
    if stage.method.general == "only":
        raise ValueError(
            f"{key}.objective={stage.objective} learns plain text and no task: move the stage to general, or choose "
            + task_objectives_where(lambda other: other.general != "only")
        )
    if PLAIN in stage.data:
        raise ValueError(
            f"{key}.data names {PLAIN}, which is no text of the task: move the stage to general, or name {GOLD} or "
            f"{TRANSFER}"
        )


def require_general(
    students: Mapping[str, TaskStudentConfig],
    *,
    teacher: Sequence[TaskStageConfig],
    answers: str,
    plain: bool,
    sets: Sequence[str],
) -> None:
    """Refuse general stages of these students and of their teacher that cannot work, or plain text that nobody reads.

    `answers` says by what the teacher does, `plain` whether there is plain text, `sets` which sets of examples beside.

    Raises:
        ValueError: naming the key and the cure.
    """
    found = {f"students.{name}.general": student.general for name, student in students.items()}
    found[OF_TEACHER] = tuple(teacher)
    key = next((key for key, stages in found.items() if stages), None)
    if key is None:
        if plain:
            raise ValueError("data.plain is read by general stages and there are none: add some, or remove it")
        return
    if answers != "head":
        raise ValueError(
            f"general stages are for encoders, and teacher.answers={answers} is a language model: set answers: head, "
            "or distil the language model in an experiment without task"
        )
    if not plain:
        raise ValueError(f"{key} learns from plain text and data.plain is not set: name its train and dev files")
    for name, student in students.items():
        if student.general and not isinstance(student.start, TransformerStart):
            raise ValueError(
                f"students.{name}.general is for encoders and start.kind={student.start.kind}: set kind: transformer, "
                "or remove general"
            )
    for key, stages in found.items():
        for number, stage in enumerate(stages):
            _require_stage(f"{key}.{number}", stage, known=(PLAIN, *sets), is_student=key != OF_TEACHER)


def _require_stage(key: str, stage: TaskStageConfig, *, known: Sequence[str], is_student: bool) -> None:
    if stage.method.general == "never":
        raise ValueError(
            f"{key}.objective={stage.objective} learns a task and general stages learn plain text: choose "
            + task_objectives_where(lambda other: other.general != "never")
        )
    if not is_student and (stage.needs != "words" or stage.reads_inside):
        raise ValueError(
            f"{key} learns from a teacher and is a stage of the teacher itself: set objective: masked_lm, without "
            "soft_weight and features"
        )
    if stage.lora is not None:
        raise ValueError(
            f"{key}.lora trains adapters beside an output layer that is the embeddings: remove it, or set unfrozen"
        )
    if stage.unfrozen != "all" and stage.needs != "words":
        raise ValueError(
            f"{key}.unfrozen={stage.unfrozen} counts from the head down, which objective={stage.objective} leaves "
            "alone: remove it"
        )
    unknown = next((name for name in stage.data if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{key}.data names {unknown}, and there are {', '.join(known)}: name one of them")
