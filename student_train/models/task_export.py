"""The trained student of a task as a directory, with a model card that says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from torch import Tensor

from cache.disk.failpoints import failpoint
from configs.model_files import CARD
from configs.task_stages import TaskStageConfig
from student_train.files import staged_directory
from student_train.job import StepMetrics
from student_train.models.export import base_models, features_learned, held_out_table, licence_id, licence_line
from student_train.models.task_model import TaskStudent, write_task_student
from student_train.papers import Papers, write_papers


@dataclass(frozen=True, slots=True, eq=False)
class TaskCard:
    """What the README of an exported student says about where it comes from.

    `combined` says how several teachers were, "" of one; `start` says in words what the student was before. `sets` are
    the examples by the set that they are from, `digest` is that of all of them. `measured` are the held-out metrics in
    their order.
    """

    teacher: str
    licence: str | None
    combined: str
    start: str
    stage: TaskStageConfig
    sets: Mapping[str, int]
    digest: str
    steps: int
    selected_step: int
    measured: Sequence[StepMetrics]


def export_task_student(
    student: TaskStudent,
    weights: Mapping[str, Tensor],
    *,
    start: Path,
    out: Path,
    card: TaskCard,
    papers: Sequence[Papers] = (),
) -> Path:
    """Write `weights` with config and tokenizer of `start` to `out`, which appears whole or not at all.

    `papers` are the licences of its teachers.

    The places where a test may kill the process are those of `student_train.models.export`.
    """
    with staged_directory(out) as staging:
        write_task_student(student, weights, start=start, folder=staging)
        readme = staging / CARD
        # Some kinds of students say there how they are loaded.
        loading = f"\n{readme.read_text(encoding='utf-8')}" if readme.exists() else ""
        readme.write_text(task_card_text(card, student=student) + loading, encoding="utf-8")
        write_papers(staging, papers)
        failpoint("export-before-commit")
    failpoint("export-after-commit")
    return out


def task_card_text(card: TaskCard, *, student: TaskStudent) -> str:
    """The model card: Markdown behind the front matter that model hubs read."""
    stage = card.stage
    front = {
        "base_model": base_models(card.teacher),
        "license": licence_id(card.licence),
        "pipeline_tag": student.pipeline,
        "tags": ["distillation", "stillroom", stage.objective],
    }
    data = ", ".join(f"{count:,} examples of {name}" for name, count in card.sets.items())
    settings = ", ".join(
        f"{name} {getattr(stage, name)}"
        for name in ("learning_rate", "schedule", "warmup_steps", "weight_decay", "gradient_clip", "batch_size")
    )
    learned = f"unfrozen {stage.unfrozen}"
    if stage.lora is not None:
        learned = f"LoRA of rank {stage.lora.rank} and alpha {stage.lora.alpha:g}, merged, beside the whole head"
    return f"""---
{yaml.safe_dump(front, allow_unicode=True).strip()}
---

# Student of {card.teacher}

{student.purpose}, trained for {card.steps} steps with the objective
`{stage.objective}`; these are the weights after step {card.selected_step} (`select: {stage.select}`).

- Teacher: {card.teacher}{f" ({card.combined})" if card.combined else ""}
- {licence_line(card.licence)}
- Start: {card.start}
- Objective: {stage.method.card(stage)}{features_learned(stage.features)}
- Data: {data}
- Examples (SHA-256): `{card.digest}`
- Settings: {settings}, seed {stage.seed}, dtype {stage.dtype}, {learned}
- Made with Stillroom {version("stillroom")}
{held_out_table(card.measured, selected_step=card.selected_step)}"""
