from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor

from student_train import logit_mse, soft_cross_entropy
from student_train.losses.logits import label_cross_entropy


def logits(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_mse_of_logits_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, -1.0]])
    assert logit_mse(student, teacher).tolist() == [2.5, 5.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_cross_entropy_is_the_kl_of_softened_distributions_times_their_temperature_squared(
    temperature: float,
) -> None:
    student, teacher = logits(5, 7, seed=0), logits(5, 7, seed=1)
    p, q = (log_softmax(each.numpy() / temperature, axis=1) for each in (teacher, student))
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1)
    found = soft_cross_entropy(student, teacher, temperature=temperature)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_its_gradient_is_that_of_cross_entropy_against_the_softened_teacher() -> None:
    student, teacher = logits(4, 3, seed=2).requires_grad_(), logits(4, 3, seed=3)
    soft_cross_entropy(student, teacher, temperature=2.0).sum().backward()
    expected = 2.0 * (torch.softmax(student / 2.0, dim=1) - torch.softmax(teacher / 2.0, dim=1))
    torch.testing.assert_close(student.grad, expected.detach())


def test_a_shift_of_all_logits_changes_no_belief() -> None:
    student, teacher = logits(4, 3, seed=4), logits(4, 3, seed=5)
    moved = soft_cross_entropy(student + 7.0, teacher - 2.0, temperature=3.0)
    torch.testing.assert_close(moved, soft_cross_entropy(student, teacher, temperature=3.0))


def test_equal_logits_cost_nothing() -> None:
    teacher = logits(6, 9, seed=6)
    assert logit_mse(teacher, teacher).tolist() == [0.0] * 6
    assert soft_cross_entropy(teacher, teacher, temperature=2.0).abs().max() < 1e-12


def test_a_choice_that_the_teacher_rules_out_is_no_number_to_stumble_over() -> None:
    student, teacher = logits(1, 3, seed=7).requires_grad_(), torch.tensor([[0.0, -torch.inf, 1.0]]).double()
    loss = soft_cross_entropy(student, teacher, temperature=1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and student.grad is not None and torch.isfinite(student.grad).all()


def test_labels_that_are_not_known_cost_nothing() -> None:
    student = logits(3, 4, seed=8)
    found = label_cross_entropy(student, torch.tensor([2, -1, 0]))
    expected = -log_softmax(student.numpy(), axis=1)[[0, 2], [2, 0]]
    np.testing.assert_allclose(found[[0, 2]].numpy(), expected)
    assert found[1] == 0


@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_what_is_not_valid_enters_nothing(seed: int, counts: list[int]) -> None:
    """Decisions of different numbers of choices, padded together, are as each of them alone."""
    widest = max(counts) + 2
    student, teacher = logits(len(counts), widest, seed=seed), logits(len(counts), widest, seed=seed + 1)
    valid = torch.arange(widest)[None] < torch.tensor(counts)[:, None]
    student[~valid], teacher[~valid] = torch.nan, torch.nan
    student = torch.nan_to_num(student, nan=99.0)
    teacher = torch.nan_to_num(teacher, nan=-99.0)
    labels = torch.zeros(len(counts), dtype=torch.int64)
    for row, count in enumerate(counts):
        one, other = student[row : row + 1, :count], teacher[row : row + 1, :count]
        pairs = [
            (logit_mse(student, teacher, valid=valid), logit_mse(one, other)),
            (
                soft_cross_entropy(student, teacher, temperature=2.0, valid=valid),
                soft_cross_entropy(one, other, temperature=2.0),
            ),
            (label_cross_entropy(student, labels, valid=valid), label_cross_entropy(one, labels[:1])),
        ]
        for padded, alone in pairs:
            torch.testing.assert_close(padded[row], alone[0])


def test_a_decision_without_choices_has_no_gradient() -> None:
    student = logits(2, 3, seed=9).requires_grad_()
    valid = torch.tensor([[True, True, True], [False, False, False]])
    loss = logit_mse(student, logits(2, 3, seed=10), valid=valid)
    loss = loss + soft_cross_entropy(student, logits(2, 3, seed=11), temperature=1.0, valid=valid)
    loss.sum().backward()
    assert student.grad is not None and student.grad[1].tolist() == [0.0] * 3
