from __future__ import annotations

import torch
from task_examples import class_batch, span_batch


def test_a_decision_of_classification_is_a_row_of_logits() -> None:
    logits = torch.randn(2, 3)
    rows, valid = class_batch([0, 2]).decisions(logits)
    assert rows is logits and valid is None


def test_decisions_of_spans_choose_among_the_units_of_their_own_passage() -> None:
    logits = torch.tensor([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [3.0, 13.0], [4.0, 14.0]])
    rows, valid = span_batch().decisions(logits)
    assert valid is not None
    assert [row[there].tolist() for row, there in zip(rows, valid, strict=True)] == [
        [0.0, 1.0],
        [10.0, 11.0],
        [2.0, 3.0, 4.0],
        [12.0, 13.0, 14.0],
    ]


def test_every_tensor_of_a_batch_goes_to_another_device() -> None:
    moved = span_batch(teacher=[[0.0, 1.0]] * 5).to(torch.device("meta"))
    for name in ("input_ids", "attention_mask", "segment_ids", "units", "owner", "gold", "teacher", "choices"):
        assert getattr(moved, name).device.type == "meta", name
    assert class_batch([1]).to(torch.device("meta")).teacher is None
