"""The teacher's distribution over the choices, softened by a temperature (Hinton et al. 2015, arXiv 1503.02531).

With `gold_weight` a the loss is (1 - a) T^2 KL(teacher ‖ student) + a x cross-entropy on gold where gold is known, and
T^2 KL alone where it is not.
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


def soft_loss(logits: Float[Tensor, "N C"], batch: TaskBatch, stage: TaskStageConfig) -> LossSums:
    """See the module's docstring."""
    import torch

    from student_train.losses.logits import label_cross_entropy, soft_cross_entropy
    from student_train.objectives.decisions import task_sums

    assert batch.teacher is not None
    answered, valid = batch.decisions(logits)
    believed, _ = batch.decisions(batch.teacher)
    loss = soft_cross_entropy(answered, believed, temperature=stage.temperature, valid=valid)
    share = torch.where(batch.gold >= 0, stage.gold_weight, 0.0)
    loss = (1 - share) * loss + share * label_cross_entropy(answered, batch.gold, valid=valid)
    return task_sums(loss, logits, batch)


def _needs(_: TaskStageConfig) -> TaskNeed:
    return "logits"


def _card(stage: TaskStageConfig) -> str:
    gold = f", gold labels at weight {stage.gold_weight:g}" if stage.gold_weight else ""
    return f"`soft_labels`, the teacher's distribution at temperature {stage.temperature:g}{gold}"


OBJECTIVE = TaskObjective(
    name="soft_labels",
    learns="the teacher's distribution over the labels",
    needs=_needs,
    settings=frozenset({"temperature", "gold_weight"}),
    loss=soft_loss,
    card=_card,
)
