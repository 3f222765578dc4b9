"""Relations of states, against loops in plain float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from student_train import angle_relation, distance_relation

LOSSES = {"distance": distance_relation, "angle": angle_relation}

each = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = drawn(7, 3, seed=1) * 4, drawn(7, 5, seed=2)
GROUPS = torch.tensor([2, 0, 2, 0, 2, 1, 2])


def huber(x: float) -> float:
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def apart(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def length(vector: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in vector))


def distances(states: list[list[float]]) -> list[list[float]]:
    far = [[length(apart(one, other)) for other in states] for one in states]
    pairs = len(states) * (len(states) - 1)
    mean = math.fsum(math.fsum(row) for row in far) / pairs if pairs else 1.0
    return [[value / mean for value in row] for row in far]


def cosine(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / length(one) / length(other)


def expected_distance(student: list[list[float]], teacher: list[list[float]], at: int) -> float:
    ours, theirs = distances(student), distances(teacher)
    found = [huber(ours[at][other] - theirs[at][other]) for other in range(len(student)) if other != at]
    return math.fsum(found) / len(found) if found else 0.0


def expected_angle(student: list[list[float]], teacher: list[list[float]], at: int) -> float:
    found = []
    for one in range(len(student)):
        for other in range(len(student)):
            if len({at, one, other}) == 3:
                both = [cosine(apart(s[one], s[at]), apart(s[other], s[at])) for s in (student, teacher)]
                found.append(huber(both[0] - both[1]))
    return math.fsum(found) / len(found) if found else 0.0


@pytest.mark.parametrize(
    ("loss", "expected"), [(distance_relation, expected_distance), (angle_relation, expected_angle)], ids=LOSSES
)
def test_each_example_is_related_to_the_others_of_its_group(
    loss: Callable[..., Tensor], expected: Callable[..., float]
) -> None:
    found = loss(STUDENT, TEACHER, GROUPS)
    for number in range(3):
        at = (number == GROUPS).nonzero()[:, 0]
        student, teacher = STUDENT[at].tolist(), TEACHER[at].tolist()
        wanted = [expected(student, teacher, place) for place in range(len(at))]
        np.testing.assert_allclose(found[at].numpy(), wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(STUDENT, TEACHER), loss(STUDENT, TEACHER, torch.zeros(7, dtype=torch.int64)))


@each
def test_states_that_are_turned_moved_and_stretched_are_related_as_before(loss: Callable[..., Tensor]) -> None:
    turned, _ = torch.linalg.qr(drawn(5, 5, seed=3))
    torch.testing.assert_close(loss(TEACHER @ turned * 3 + 7, TEACHER), torch.zeros(7, dtype=torch.float64))


@each
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda states: loss(states, TEACHER, GROUPS), (student,))


@each
def test_what_lies_at_one_place_and_what_is_alone_has_finite_gradients(loss: Callable[..., Tensor]) -> None:
    student = torch.stack([torch.ones(3), torch.ones(3), torch.zeros(3)]).double().requires_grad_()
    loss(student, TEACHER[:3]).sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    same = torch.ones(4, 3).double().requires_grad_()
    values = loss(same, TEACHER[:4], torch.tensor([0, 0, 0, 1]))
    values.sum().backward()
    assert float(values[3].detach()) == 0.0
    assert same.grad is not None and torch.isfinite(same.grad).all()
    empty = torch.zeros(0, 3, requires_grad=True)
    loss(empty, torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert empty.grad is not None
