from __future__ import annotations

import torch
from task_examples import class_batch

from configs.task_stages import TaskStageConfig
from student_train.losses.logits import label_cross_entropy, soft_cross_entropy
from student_train.objectives.soft_labels import OBJECTIVE, soft_loss

TEACHER = [[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_gold_counts_its_weight_where_it_is_known() -> None:
    stage = TaskStageConfig(objective="soft_labels", temperature=3.0, gold_weight=0.25, steps=1)
    logits, batch = torch.randn(2, 3), class_batch([1, -1], teacher=TEACHER)
    soft = soft_cross_entropy(logits, torch.tensor(TEACHER), temperature=3.0)
    hard = label_cross_entropy(logits, batch.gold)
    torch.testing.assert_close(soft_loss(logits, batch, stage).loss, 0.75 * soft[0] + 0.25 * hard[0] + soft[1])
    assert stage.needs == "logits"
    assert OBJECTIVE.card(stage) == (
        "`soft_labels`, the teacher's distribution at temperature 3, gold labels at weight 0.25"
    )
