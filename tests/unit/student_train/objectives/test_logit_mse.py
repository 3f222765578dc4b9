from __future__ import annotations

import torch
from task_examples import class_batch, span_batch

from configs.task_stages import TaskStageConfig
from student_train.objectives.logit_mse import OBJECTIVE, squared_loss

STAGE = TaskStageConfig(objective="logit_mse", steps=1)


def test_the_squared_difference_of_logits_is_learned() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(squared_loss(logits, class_batch([-1], teacher=[[1.0, 2.0, 0.0]]), STAGE).loss) == 3.0
    assert STAGE.needs == "logits"
    assert OBJECTIVE.card(STAGE) == "`logit_mse`, the teacher's logits"


def test_of_spans_each_end_is_its_mean_over_the_passage() -> None:
    batch = span_batch(teacher=[[0.0, 0.0]] * 5)
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    torch.testing.assert_close(squared_loss(logits, batch, STAGE).loss, torch.tensor(2.0 + 0.0 + 3.0 + 3.0))
