from __future__ import annotations

import torch
from task_examples import class_batch, span_batch

from student_train.losses.metrics import METRICS
from student_train.objectives.decisions import TASK_METRICS, task_sums, teacher_labels

TEACHER = [[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 3.0, 0.0]]


def measured(sums: torch.Tensor) -> dict[str, float]:
    return {name: float(sums[METRICS.index(name)]) for name in TASK_METRICS}


def test_sums_over_decisions_by_hand() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 5.0, 0.0]], requires_grad=True)
    found = task_sums(torch.tensor([1.0, 2.0, 4.0]), logits, class_batch([0, 2, -1], teacher=TEACHER))
    values = measured(found.metrics)
    rows = torch.log_softmax(logits, dim=1)
    assert float(found.loss.detach()) == values["loss"] == 7.0
    assert values["accuracy"] == 1.0
    assert values["agreement"] == 2.0
    torch.testing.assert_close(torch.tensor(values["ce"]), -(rows[0, 0] + rows[1, 2]).detach())
    p = torch.log_softmax(torch.tensor(TEACHER), dim=1)
    torch.testing.assert_close(torch.tensor(values["divergence"]), (p.exp() * (p - rows.detach())).sum())


def test_without_a_teacher_nothing_is_said_of_it() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0]])
    values = measured(task_sums(torch.ones(1), logits, class_batch([0])).metrics)
    assert values["divergence"] == values["agreement"] == 0.0 and values["accuracy"] == 1.0


def test_no_decisions_give_zero_and_still_a_gradient() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    found = task_sums(torch.zeros(0), logits, class_batch([], teacher=None))
    found.loss.backward()
    assert float(found.loss.detach()) == 0.0 and logits.grad is not None


def test_both_ends_of_a_span_are_decisions() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    batch = span_batch(teacher=[[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, 0.0], [0.0, 9.0]])
    values = measured(task_sums(torch.ones(4), logits, batch).metrics)
    assert values["accuracy"] == 3.0 and values["agreement"] == 3.0
    assert teacher_labels(batch).tolist() == [0, 1, 0, 2]
