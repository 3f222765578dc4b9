"""Micro-batches of tasks: their decisions, and how examples become one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_examples import class_batch, classification, span_batch, spans

from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import collate_examples


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


def test_examples_become_rows_with_their_units_decisions_and_beliefs() -> None:
    batch = collate_examples(classification(), np.array([2, 1]))
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [3, 4, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]
    assert batch.owner.tolist() == [0, 1]
    assert batch.units.tolist() == [0, 4]
    assert batch.gold.tolist() == [-1, 2]
    assert batch.teacher is not None and batch.teacher.tolist() == [[6.0, 7.0, 8.0], [3.0, 4.0, 5.0]]
    assert batch.choices is None


def test_spans_choose_among_the_units_of_their_own_row() -> None:
    batch, expected = collate_examples(spans(), np.array([0, 1])), span_batch()
    assert batch.choices is not None and expected.choices is not None
    for name in ("units", "owner", "gold", "choices"):
        assert getattr(batch, name).tolist() == getattr(expected, name).tolist(), name
    assert batch.segment_ids.tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    turned = collate_examples(spans(), np.array([1, 0]))
    assert turned.choices is not None
    assert turned.choices.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, -1], [3, 4, -1]]
    assert turned.units.tolist() == [2, 3, 4, 7, 8]


@pytest.mark.parametrize("examples", [classification(), spans(), classification(teacher=None)])
def test_no_examples_are_one_token_and_no_decision(examples: ExampleSet) -> None:
    batch = collate_examples(examples, np.empty(0, np.int64))
    assert batch.input_ids.shape == (1, 1)
    assert batch.attention_mask.tolist() == [[1]]
    assert len(batch.units) == len(batch.owner) == len(batch.gold) == 0
    assert (batch.teacher is None) == (examples.teacher is None)
    rows, _ = batch.decisions(torch.zeros(0, len(examples.labels)))
    assert len(rows) == 0
