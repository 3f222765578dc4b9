"""Bags of embeddings against their formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from task_students import LABELS, NETWORKS, WORDS

from student_train.models.bag import BagStudent


def made(name: str = "bag", **changes: Any) -> BagStudent:
    torch.manual_seed(4)
    settings = {"task": "classification", "labels": LABELS, "vocab": len(WORDS), "embedding_size": 8}
    return BagStudent.of(settings | NETWORKS[name] | changes).eval()


def of_words(student: BagStudent, *rows: list[int]) -> torch.Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return student(ids, mask, torch.zeros_like(ids))


def test_the_mean_is_of_words_alone() -> None:
    student = made()
    found = of_words(student, [2, 7, 9, 7, 3], [2, 8, 3])
    with torch.no_grad():
        first = student.head(student.embedding.weight[[7, 9, 7]].mean(dim=0))
        second = student.head(student.embedding.weight[8])
    torch.testing.assert_close(found, torch.stack([first, second]), rtol=0, atol=1e-6)


def test_an_unknown_word_counts_as_a_word() -> None:
    student = made()
    assert not torch.allclose(of_words(student, [2, 7, 1, 3]), of_words(student, [2, 7, 3]))


def test_a_layer_between_is_rectified() -> None:
    student = made("deep-bag")
    with torch.no_grad():
        mean = student.embedding.weight[[5, 6]].mean(dim=0)
        assert student.hidden is not None
        expected = student.head(torch.relu(student.hidden(mean)))
    torch.testing.assert_close(of_words(student, [2, 5, 6, 3])[0], expected, rtol=0, atol=1e-6)
    assert [len(group) for group in student.groups()] == [2, 2, 1]


def test_a_text_without_words_is_what_the_head_says_of_nothing() -> None:
    student = made()
    torch.testing.assert_close(of_words(student, [2, 3])[0], student.head.bias.detach())


@pytest.mark.parametrize("task", ["tagging", "extractive_qa"])
def test_a_bag_does_nothing_but_classify(task: str) -> None:
    with pytest.raises(ValidationError):
        made(task=task)
