"""Small sets of examples and micro-batches of tasks, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import TaskBatch

LABELS = ("a", "b", "c")


def classification(**changes: Any) -> ExampleSet:
    """Three texts of 3, 2 and 4 tokens with one label each, the last unknown; the second is a pair."""
    fields: dict[str, Any] = {
        "kind": "classification",
        "labels": LABELS,
        "token_ids": np.arange(9, dtype=np.int32),
        "token_offsets": np.array([0, 3, 5, 9]),
        "split": np.array([3, 1, 4], np.int32),
        "unit_offsets": np.array([0, 1, 2, 3]),
        "unit_tokens": np.zeros(3, np.int32),
        "gold": np.array([0, 2, -1], np.int32),
        "teacher": np.arange(9, dtype=np.float32).reshape(3, 3),
    }
    return ExampleSet(**fields | changes)


def spans(**changes: Any) -> ExampleSet:
    """Two passages of 2 and 3 units, with answers at units 0 to 1 and 2 to 2."""
    fields: dict[str, Any] = {
        "kind": "extractive_qa",
        "labels": ("first", "last"),
        "token_ids": np.arange(9, dtype=np.int32),
        "token_offsets": np.array([0, 4, 9]),
        "split": np.array([2, 2], np.int32),
        "unit_offsets": np.array([0, 2, 5]),
        "unit_tokens": np.array([2, 3, 2, 3, 4], np.int32),
        "gold": np.array([0, 1, 2, 2], np.int32),
        "teacher": np.arange(10, dtype=np.float32).reshape(5, 2),
    }
    return ExampleSet(**fields | changes)


def class_batch(gold: list[int], *, teacher: list[list[float]] | None = None) -> TaskBatch:
    """A micro-batch of texts of one token."""
    ones = torch.ones(max(len(gold), 1), 1, dtype=torch.int64)
    at = torch.arange(len(gold))
    return TaskBatch(
        input_ids=ones,
        attention_mask=ones,
        segment_ids=0 * ones,
        units=at,
        owner=at,
        gold=torch.tensor(gold, dtype=torch.int64),
        teacher=None if teacher is None else torch.tensor(teacher),
    )


def span_batch(*, teacher: list[list[float]] | None = None) -> TaskBatch:
    """A micro-batch of the two passages of `spans`."""
    ones = torch.ones(2, 5, dtype=torch.int64)
    return TaskBatch(
        input_ids=ones,
        attention_mask=ones,
        segment_ids=0 * ones,
        units=torch.tensor([2, 3, 7, 8, 9]),
        owner=torch.tensor([0, 0, 1, 1, 1]),
        gold=torch.tensor([0, 1, 2, 2]),
        teacher=None if teacher is None else torch.tensor(teacher),
        choices=torch.tensor([[0, 1, -1], [0, 1, -1], [2, 3, 4], [2, 3, 4]]),
    )
