"""Graphs of networks, run by onnxruntime, against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from task_students import LABELS, NETWORKS, rows_of, save_network

from student_train.models.onnx_networks import INPUTS, network_graph
from student_train.models.task_model import load_task_student
from student_train.models.task_network import NetworkStudent


def loaded(folder: Path, **options: Any) -> NetworkStudent:
    kind, labels = options.get("task", "classification"), options.get("labels", LABELS)
    found = load_task_student(save_network(folder / "network", **options), kind=kind, labels=labels)
    assert isinstance(found, NetworkStudent)
    return found


def run(student: NetworkStudent, rows: Any) -> np.ndarray[Any, Any]:
    graph = network_graph(student)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {name: row.numpy() for name, row in zip(INPUTS, rows, strict=True)})
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lengths", [(6,), (3, 9, 1, 20), (2, 2)])
def test_texts_get_the_logits_of_torch(tmp_path: Path, name: str, lengths: tuple[int, ...]) -> None:
    student, rows = loaded(tmp_path, name=name), rows_of(lengths)
    with torch.no_grad():
        expected = student(*rows).numpy()
    np.testing.assert_allclose(run(student, rows), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    # What stands at padding is not read, though it is no token at all.
    np.testing.assert_allclose(run(student, rows_of(lengths, width=23, rubbish=10**6)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("kind", ["tagging", "extractive_qa"])
def test_tokens_get_the_logits_of_torch(tmp_path: Path, name: str, kind: Any) -> None:
    labels = LABELS if kind == "tagging" else ("first", "last")
    student, rows = loaded(tmp_path, name=name, task=kind, labels=labels), rows_of((3, 9, 1))
    with torch.no_grad():
        expected = student(*rows).numpy()
    found = run(student, rows)
    assert found.shape == (3, 9, len(labels))
    real = rows[1].bool().numpy()
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)
