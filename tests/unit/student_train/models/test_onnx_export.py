"""ONNX files of every kind of student: the same logits, in any batch and of any length, or no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from task_students import FAMILIES, LABELS, rows_of, save_network, save_student, save_transformer
from torch import Tensor, nn

from configs.errors import ModelError
from configs.task_features import InsideSizes
from student_train.feed.task_batch import TaskBatch
from student_train.models import onnx_export
from student_train.models.onnx_export import export_onnx, onnx_difference
from student_train.models.task_model import TaskStudent, load_task_student
from student_train.models.tracing import Trace


def load(folder: Path, **options: Any) -> TaskStudent:
    return load_task_student(folder, **{"kind": "classification", "labels": LABELS} | options)


def run(path: Path, rows: Any) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ("input_ids", "attention_mask", "segment_ids")
    assert [each.name for each in session.get_inputs()] == list(names)
    (found,) = session.run(["logits"], {name: row.numpy() for name, row in zip(names, rows, strict=True)})
    return found


@pytest.mark.parametrize("name", [*FAMILIES, "lstm", "bag"])
def test_the_file_says_what_torch_says(tmp_path: Path, name: str) -> None:
    student, path = load(save_student(tmp_path / "student", name=name)), tmp_path / "model.onnx"
    assert export_onnx(student, path) < 1e-5
    for lengths in [(4,), (13, 2, 30), (1, 1)]:
        rows = rows_of(lengths)
        with torch.no_grad():
            np.testing.assert_allclose(run(path, rows), student(*rows).numpy(), atol=1e-5)
    said = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert (said["kind"], json.loads(said["labels"])) == ("classification", list(LABELS))


@pytest.mark.parametrize("kind", ["tagging", "extractive_qa"])
def test_tags_and_spans_too(tmp_path: Path, kind: Any) -> None:
    student = load(save_transformer(tmp_path / "student", kind=kind), kind=kind)
    assert export_onnx(student, tmp_path / "model.onnx") < 1e-5
    rows = rows_of((5, 11))
    assert run(tmp_path / "model.onnx", rows).shape == (2, 11, 3 if kind == "tagging" else 2)


def test_a_student_in_bfloat16_is_exported_in_float32_and_stays_as_it_is(tmp_path: Path) -> None:
    student = load(save_network(tmp_path / "student", name="gru"), dtype=torch.bfloat16).train()
    assert export_onnx(student, tmp_path / "model.onnx") < 1e-5
    assert student.training and {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}


def test_another_students_file_is_told_apart(tmp_path: Path) -> None:
    student, other = (load(save_network(tmp_path / str(seed), name="lstm", seed=seed)) for seed in (1, 2))
    export_onnx(student, tmp_path / "model.onnx")
    assert onnx_difference(student, tmp_path / "model.onnx") < 1e-5
    assert onnx_difference(other, tmp_path / "model.onnx") > 1e-2


def test_a_file_that_says_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, other = (load(save_network(tmp_path / str(seed), name="lstm", seed=seed)) for seed in (1, 2))
    graph = onnx_export.network_graph(other)  # type: ignore[arg-type]
    monkeypatch.setattr(onnx_export, "network_graph", lambda _: graph)
    with pytest.raises(
        ModelError, match=r"the logits of the ONNX file are .* from torch's, and 1e-04 is allowed: keep"
    ):
        export_onnx(student, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


class Unheard(TaskStudent):
    """What it does depends on the numbers it is given, which no graph can follow."""

    def __init__(self) -> None:
        super().__init__(kind="classification", labels=LABELS, vocab=9, max_tokens=9)
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> Tensor:
        return torch.stack([self.weight * len(set(row.tolist())) for row in input_ids])

    @property
    def sizes(self) -> InsideSizes:
        raise NotImplementedError

    def traced(self, batch: TaskBatch) -> Trace:
        raise NotImplementedError

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.weight]]


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be written as ONNX \(.*\): keep the model as it is") as caught:
        export_onnx(Unheard(), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
