"""Nothing but what is inside the teacher: the terms of the stage's `features`, and no answer.

The first stage of methods that bring a student's states to its teacher's before its head learns anything, as those of
TinyBERT (Jiao et al. 2020, arXiv 1909.10351) and XtremeDistil (Mukherjee and Awadallah 2020, arXiv 2004.05686).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.task_objectives import TaskNeed, TaskObjective
from configs.task_stages import TaskStageConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.task_batch import TaskBatch
    from student_train.losses.fused import LossSums


def no_loss(logits: Float[Tensor, "N C"], batch: TaskBatch, stage: TaskStageConfig) -> LossSums:
    """Zero at every decision; what the head says is measured all the same."""
    from student_train.objectives.decisions import task_sums

    return task_sums(logits.new_zeros(len(batch.gold)), logits, batch)


def _needs(_: TaskStageConfig) -> TaskNeed:
    return "nothing"


def _card(_: TaskStageConfig) -> str:
    return "`features`, no answer"


OBJECTIVE = TaskObjective(
    name="features",
    learns="what is inside the teacher, and no answer",
    needs=_needs,
    loss=no_loss,
    card=_card,
    general="too",
)
