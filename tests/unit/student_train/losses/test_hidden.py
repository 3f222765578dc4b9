"""Losses on states and attention scores, against loops in plain float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from student_train import attention_mse, cosine, hidden_mse, patient


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(vector: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in vector))


def test_patient_is_the_squared_distance_of_normalised_states_summed_over_layers() -> None:
    student, teacher = drawn(4, 3, 5, seed=0) * 7, drawn(4, 3, 5, seed=1)
    expected = [
        math.fsum(
            (a / norm(one) - b / norm(other)) ** 2
            for one, other in zip(ours, theirs, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    np.testing.assert_allclose(patient(student, teacher).numpy(), expected, rtol=1e-9)


def test_cosine_is_one_less_the_cosine_of_the_angle() -> None:
    student, teacher = drawn(6, 5, seed=2), drawn(6, 5, seed=3) * 4
    expected = [
        1.0 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / norm(one) / norm(other)
        for one, other in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    np.testing.assert_allclose(cosine(student, teacher).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("projected", [True, False])
def test_hidden_mse_is_the_mean_over_the_teachers_width(projected: bool) -> None:
    student, teacher = drawn(4, 3, seed=4), drawn(4, 5 if projected else 3, seed=5)
    projection = drawn(3, 5, seed=6) if projected else None
    mapped = (student @ projection if projection is not None else student).tolist()
    if projection is not None:
        weights = projection.tolist()
        mapped = [[math.fsum(row[i] * weights[i][j] for i in range(3)) for j in range(5)] for row in student.tolist()]
    expected = [
        math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(other)
        for one, other in zip(mapped, teacher.tolist(), strict=True)
    ]
    np.testing.assert_allclose(hidden_mse(student, teacher, projection).numpy(), expected, rtol=1e-9)


def scores(seed: int) -> tuple[Tensor, Tensor]:
    """Scores of three rows of two heads, and what of their four tokens is valid: none of the last row."""
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    return drawn(3, 2, 4, 4, seed=seed), mask


def test_attention_mse_is_the_mean_over_heads_and_valid_pairs() -> None:
    student, mask = scores(7)
    teacher, _ = scores(8)
    expected = []
    for row, valid in enumerate(mask.tolist()):
        squares = [
            (float(student[row, head, query, key]) - float(teacher[row, head, query, key])) ** 2
            for head in range(2)
            for query in range(4)
            for key in range(4)
            if valid[query] and valid[key]
        ]
        expected.append(math.fsum(squares) / len(squares) if squares else 0.0)
    np.testing.assert_allclose(attention_mse(student, teacher, mask).numpy(), expected, rtol=1e-9)


def test_what_is_not_valid_may_be_infinite() -> None:
    student, mask = scores(9)
    teacher, _ = scores(10)
    expected = attention_mse(student, teacher, mask)
    outside = ~(mask[:, None, :, None] & mask[:, None, None, :]).expand_as(student)
    student = student.masked_fill(outside, torch.inf).requires_grad_()
    found = attention_mse(student, teacher.masked_fill(outside, -torch.inf), mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all() and not student.grad[outside].any()


def test_equal_states_cost_nothing() -> None:
    states = drawn(5, 3, 4, seed=12)
    assert patient(states, states).abs().max() == 0.0
    assert patient(states * 3, states).abs().max() < 1e-12, "length does not count"
    assert cosine(states[:, 0] * 3, states[:, 0]).abs().max() < 1e-12
    assert hidden_mse(states[:, 0], states[:, 0]).abs().max() == 0.0


def test_gradients_are_those_of_finite_differences() -> None:
    student, teacher = drawn(3, 2, 4, seed=13).requires_grad_(), drawn(3, 2, 4, seed=14)
    assert torch.autograd.gradcheck(lambda given: patient(given, teacher), (student,))
    assert torch.autograd.gradcheck(lambda given: cosine(given[:, 0], teacher[:, 0]), (student,))
    projection = drawn(4, 6, seed=15).requires_grad_()
    wide = drawn(3, 6, seed=16)
    assert torch.autograd.gradcheck(lambda given, by: hidden_mse(given[:, 0], wide, by), (student, projection))
    ours, mask = scores(17)
    theirs, _ = scores(18)
    assert torch.autograd.gradcheck(lambda given: attention_mse(given, theirs, mask), (ours.requires_grad_(),))


def test_the_order_of_the_data_changes_neither_loss_nor_gradient() -> None:
    student, teacher = drawn(8, 3, 4, seed=19), drawn(8, 3, 4, seed=20)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(21))
    plain, moved = student.clone().requires_grad_(), student[order].clone().requires_grad_()
    losses = patient(plain, teacher), patient(moved, teacher[order])
    torch.testing.assert_close(losses[0][order], losses[1], rtol=0, atol=0)
    for loss in losses:
        loss.sum().backward()
    assert plain.grad is not None and moved.grad is not None
    torch.testing.assert_close(plain.grad[order], moved.grad, rtol=0, atol=0)
