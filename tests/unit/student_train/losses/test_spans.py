"""The likelihood of spans against loops in float64, its gradient against finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from student_train.losses.head import Head
from student_train.losses.spans import log1mexp, span_divergence

VOCAB, HIDDEN = 11, 5
SPANS = [-1, 0, 0, 0, 1, 1, -1, 2]
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("jsd", {"beta": 0.3}),
    ("tvd", {}),
    ("skew_kl", {"alpha": 0.1}),
    ("alpha_beta", {"a": 0.2, "b": 0.7}),
)


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(SPANS), HIDDEN, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCAB, HIDDEN, generator=draw, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(VOCAB, (len(SPANS),), generator=draw)
    return hidden, weight, labels, torch.tensor([-4.5, -0.7, -2.0], dtype=torch.float64)


def loss(hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Tensor, **settings: Any) -> Tensor:
    kind = settings.pop("kind", "forward_kl")
    budget = settings.pop("chunk_bytes", None)
    sums = span_divergence(
        kind,
        hidden,
        Head(weight, chunk_bytes=budget),
        labels=labels,
        spans=torch.tensor(SPANS),
        span_logprobs=teacher,
        **settings,
    )
    return sums.loss


def by_loops(
    logits: list[list[float]], labels: list[int], teacher: list[float], *, kind: str, **parameters: float
) -> float:
    total = 0.0
    for span, believed in enumerate(teacher):
        logq = 0.0
        for row, label, owner in zip(logits, labels, SPANS, strict=True):
            if owner == span:
                logq += row[label] - math.log(sum(math.exp(x) for x in row))
        p, q = (math.exp(believed), 1 - math.exp(believed)), (math.exp(logq), 1 - math.exp(logq))
        if kind == "forward_kl":
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        elif kind == "reverse_kl":
            total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        elif kind == "tvd":
            total += 0.5 * sum(abs(a - b) for a, b in zip(p, q, strict=True))
        elif kind == "jsd":
            beta = parameters["beta"]
            m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
            total += sum(
                beta * a * math.log(a / c) + (1 - beta) * b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True)
            )
        elif kind == "skew_kl":
            share = parameters["alpha"]
            total += sum(a * math.log(a / (share * a + (1 - share) * b)) for a, b in zip(p, q, strict=True))
        else:
            a_, b_ = parameters["a"], parameters["b"]
            s = a_ + b_
            total -= sum(x**a_ * y**b_ - a_ / s * x**s - b_ / s * y**s for x, y in zip(p, q, strict=True)) / (a_ * b_)
    return total


@pytest.mark.parametrize(("kind", "parameters"), KINDS)
def test_the_value_is_that_of_a_loop_over_spans(kind: str, parameters: dict[str, float]) -> None:
    hidden, weight, labels, teacher = case()
    expected = by_loops((hidden @ weight.T).tolist(), labels.tolist(), teacher.tolist(), kind=kind, **parameters)
    found = loss(hidden, weight, labels, teacher, kind=kind, **parameters)
    assert found.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("kind", "parameters"), KINDS)
def test_the_gradient_is_that_of_finite_differences(kind: str, parameters: dict[str, float]) -> None:
    hidden, weight, labels, teacher = case(1)

    def of(hidden: Tensor, weight: Tensor) -> Tensor:
        return loss(hidden, weight, labels, teacher, kind=kind, ce_weight=0.3, **parameters)

    assert torch.autograd.gradcheck(of, (hidden, weight))


def test_chunks_of_logits_change_nothing() -> None:
    hidden, weight, labels, teacher = case(2)
    whole = loss(hidden, weight, labels, teacher, ce_weight=0.5)
    # Two rows of logits at a time: spans are cut in the middle.
    parts = loss(hidden, weight, labels, teacher, ce_weight=0.5, chunk_bytes=2 * 4 * VOCAB)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(each, (hidden, weight)) for each in (whole, parts)]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-12)


def test_a_student_that_believes_what_its_teacher_does_learns_nothing() -> None:
    hidden, weight, labels, _ = case(3)
    logprobs = (hidden @ weight.T).log_softmax(1)[torch.arange(len(SPANS)), labels].detach()
    teacher = torch.tensor([logprobs[1:4].sum(), logprobs[4:6].sum(), logprobs[7]], dtype=torch.float64)
    found = loss(hidden, weight, labels, teacher)
    assert found.item() == pytest.approx(0.0, abs=1e-12)
    for grad in torch.autograd.grad(found, (hidden, weight)):
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


def test_no_spans_give_zero_and_certain_ones_stay_finite() -> None:
    hidden, weight, labels, _ = case(4)
    none = span_divergence(
        "forward_kl",
        hidden,
        Head(weight),
        labels=labels,
        spans=torch.full((len(SPANS),), -1),
        span_logprobs=torch.zeros(0).double(),
    )
    assert none.loss.item() == 0.0
    certain = loss(hidden, weight, labels, torch.tensor([0.0, -200.0, -1e-12], dtype=torch.float64), kind="reverse_kl")
    assert math.isfinite(certain.item())
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(certain, (hidden, weight)))


def test_log_of_one_minus_a_probability_keeps_its_digits() -> None:
    values = torch.tensor([-1e-7, -1e-3, -0.5, -0.7, -3.0, -40.0], dtype=torch.float64, requires_grad=True)
    expected = [math.log1p(-math.exp(x)) if x < -1 else math.log(-math.expm1(x)) for x in values.tolist()]
    torch.testing.assert_close(log1mexp(values), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0)
    assert torch.autograd.gradcheck(log1mexp, (values.detach()[2:].requires_grad_(),))
