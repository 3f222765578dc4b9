"""What every task student has from its base: logits at units, groups, and labels in the task's order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from task_students import LABELS, batch_of, save_transformer
from torch import Tensor, nn

from configs.errors import ModelError
from configs.task_features import InsideSizes
from student_train.feed.task_batch import TaskBatch
from student_train.models.task_model import load_task_student
from student_train.models.task_student import TaskStudent, order_of_labels, reorder_rows
from student_train.models.tracing import Trace


class Shared(TaskStudent):
    """A head that is its own embedding."""

    def __init__(self) -> None:
        super().__init__(kind="tagging", labels=("a", "b"), vocab=2, max_tokens=9)
        self.low, self.high = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def sizes(self) -> InsideSizes:
        raise NotImplementedError

    def traced(self, batch: TaskBatch) -> Trace:
        raise NotImplementedError

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.low.weight, *self.high.parameters()], [], list(self.low.parameters())]


def test_a_shared_parameter_belongs_to_the_lowest_group() -> None:
    student = Shared()
    head, embeddings = student.groups()
    assert [id(each) for each in head] == [id(each) for each in student.high.parameters()]
    assert [id(each) for each in embeddings] == [id(each) for each in student.low.parameters()]


def test_logits_of_a_text_are_those_of_its_row(tmp_path: Path) -> None:
    student = load_task_student(save_transformer(tmp_path), kind="classification", labels=LABELS, dtype=torch.bfloat16)
    batch = batch_of([4, 7])
    rows = student(batch.input_ids, batch.attention_mask, batch.segment_ids)
    at_units = student.unit_logits(batch)
    assert rows.dtype == torch.bfloat16 and at_units.dtype == torch.float32
    assert torch.equal(at_units, rows.float())


@pytest.mark.parametrize("kind", ["tagging", "extractive_qa"])
def test_logits_at_units_are_those_of_their_tokens(tmp_path: Path, kind: str) -> None:
    student = load_task_student(save_transformer(tmp_path, kind=kind), kind=kind, labels=LABELS)  # type: ignore[arg-type]
    batch = batch_of([4, 7], kind=kind)  # type: ignore[arg-type]
    tokens = student(batch.input_ids, batch.attention_mask, batch.segment_ids)
    expected = torch.cat([tokens[0, 1:4], tokens[1, 1:7]])
    assert expected.shape[1] == (3 if kind == "tagging" else 2)
    torch.testing.assert_close(student.unit_logits(batch), expected, rtol=0, atol=0)


def test_labels_that_are_not_the_same_are_named(tmp_path: Path) -> None:
    assert order_of_labels(["a", "b", "c"], wanted=["c", "a", "b"], model_dir=tmp_path) == [2, 0, 1]
    for found in (["a", "b"], ["a", "b", "d"], ["a", "b", "b"]):
        with pytest.raises(
            ModelError, match=r"its head knows \d labels \(a, b.*\) and the task has 3 labels \(a, b, c\)"
        ):
            order_of_labels(found, wanted=["a", "b", "c"], model_dir=tmp_path)
    many = [f"l{number}" for number in range(77)]
    with pytest.raises(ModelError, match=r"77 labels \(l0, .*, l7 and 69 more\)"):
        order_of_labels(many, wanted=["a"], model_dir=tmp_path)


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_brought_into_another_order(bias: bool) -> None:
    layer, inputs = nn.Linear(4, 3, bias=bias), torch.randn(2, 4)
    before = layer(inputs)
    reorder_rows(layer, [2, 0, 1])
    torch.testing.assert_close(layer(inputs), before[:, [2, 0, 1]])
