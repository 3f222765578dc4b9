from __future__ import annotations

import torch
from task_examples import class_batch

from configs.task_stages import TaskStageConfig
from student_train.objectives.hard_labels import OBJECTIVE, label_loss

TEACHER = [[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_gold_or_the_teachers_labels_are_learned() -> None:
    logits = torch.randn(2, 3)
    rows = torch.log_softmax(logits, dim=1)
    gold = TaskStageConfig(objective="hard_labels", steps=1)
    teacher = TaskStageConfig(objective="hard_labels", labels="teacher", steps=1)
    batch = class_batch([1, 0], teacher=TEACHER)
    torch.testing.assert_close(label_loss(logits, batch, gold).loss, -(rows[0, 1] + rows[1, 0]))
    torch.testing.assert_close(label_loss(logits, batch, teacher).loss, -(rows[0, 0] + rows[1, 2]))
    assert (gold.needs, teacher.needs) == ("gold", "label")
    assert OBJECTIVE.card(gold) == "`hard_labels`, cross-entropy on gold"
    assert OBJECTIVE.card(teacher) == "`hard_labels`, cross-entropy on the labels of the teacher"
