from __future__ import annotations

import torch
from task_examples import class_batch

from configs.task_stages import TaskStageConfig
from student_train.losses.metrics import METRICS
from student_train.objectives.features import OBJECTIVE, no_loss

STAGE = TaskStageConfig.model_validate(
    {"objective": "features", "steps": 1, "select": "last", "features": ({"kind": "cosine"},)}
)


def test_no_answer_is_learned_and_what_the_head_says_is_measured() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    sums = no_loss(logits, class_batch([2], teacher=None), STAGE)
    sums.loss.backward()
    assert float(sums.loss.detach()) == 0.0 and logits.grad is not None and not logits.grad.any()
    assert float(sums.metrics[METRICS.index("accuracy")]) == 1.0
    assert STAGE.needs == "nothing" and OBJECTIVE.card(STAGE) == "`features`, no answer"
