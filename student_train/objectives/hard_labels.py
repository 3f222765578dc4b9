"""Cross-entropy on one right choice a decision: gold, or what the teacher finds likeliest (`labels: teacher`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.task_objectives import TaskNeed, TaskObjective
from configs.task_stages import TaskStageConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.task_batch import TaskBatch
    from student_train.losses.fused import LossSums


def label_loss(logits: Float[Tensor, "N C"], batch: TaskBatch, stage: TaskStageConfig) -> LossSums:
    """-log q(label), the label being gold or the teacher's."""
    from student_train.losses.logits import label_cross_entropy
    from student_train.objectives.decisions import task_sums, teacher_labels

    answered, valid = batch.decisions(logits)
    labels = batch.gold if stage.labels == "gold" else teacher_labels(batch)
    return task_sums(label_cross_entropy(answered, labels, valid=valid), logits, batch)


def _needs(stage: TaskStageConfig) -> TaskNeed:
    return "gold" if stage.labels == "gold" else "label"


def _card(stage: TaskStageConfig) -> str:
    return f"`hard_labels`, cross-entropy on {'gold' if stage.labels == 'gold' else 'the labels of the teacher'}"


OBJECTIVE = TaskObjective(
    name="hard_labels",
    learns="one label a text, word or span",
    needs=_needs,
    settings=frozenset({"labels"}),
    loss=label_loss,
    card=_card,
)
