"""The teacher's logits themselves, by their mean squared difference (Tang et al. 2019, arXiv 1903.12136)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.task_objectives import TaskNeed, TaskObjective
from configs.task_stages import TaskStageConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.task_batch import TaskBatch
    from student_train.losses.fused import LossSums


def squared_loss(logits: Float[Tensor, "N C"], batch: TaskBatch, stage: TaskStageConfig) -> LossSums:
    """The mean over the choices of (z_S - z_T)^2."""
    from student_train.losses.logits import logit_mse
    from student_train.objectives.decisions import task_sums

    assert batch.teacher is not None
    answered, valid = batch.decisions(logits)
    believed, _ = batch.decisions(batch.teacher)
    return task_sums(logit_mse(answered, believed, valid=valid), logits, batch)


def _needs(_: TaskStageConfig) -> TaskNeed:
    return "logits"


def _card(_: TaskStageConfig) -> str:
    return "`logit_mse`, the teacher's logits"


OBJECTIVE = TaskObjective(
    name="logit_mse",
    learns="the teacher's logits",
    needs=_needs,
    loss=squared_loss,
    card=_card,
)
