"""Divergences against brute force in float64 over the whole vocabulary."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from configs.errors import ConfigError
from student_train.divergences import KINDS, divergence
from student_train.targets import SparseTargets

VOCAB = 13


def teacher_targets(logits: Tensor, *, k: int) -> SparseTargets:
    logprobs = logits.double().log_softmax(dim=1)
    top, ids = logprobs.topk(k, dim=1)
    rest = logprobs.scatter(1, ids, float("-inf"))
    tail = rest.logsumexp(dim=1) if k < logits.shape[1] else torch.full((len(logits),), float("-inf")).double()
    return SparseTargets(ids, top, tail)


def brute_force(kind: str, logits: Tensor, targets: SparseTargets, *, tail: str) -> Tensor:
    """Loops and probabilities instead of tables and logarithms."""
    q = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    values = []
    for row in range(len(q)):
        ids = targets.ids[row].tolist()
        teacher = [targets.logprobs[row, j].exp() for j in range(len(ids))]
        student = [q[row, i] for i in ids]
        if tail == "bucket":
            others = [j for j in range(q.shape[1]) if j not in ids]
            teacher.append(targets.tail_logmass[row].exp())
            student.append(q[row, others].sum() if others else torch.zeros(()).double())
        p = torch.stack(teacher) / torch.stack(teacher).sum()
        r = torch.stack(student) / torch.stack(student).sum()
        first, second = (p, r) if kind == "forward_kl" else (r, p)
        terms = [a * (a / b).log() for a, b in zip(first, second, strict=True) if a > 0]
        values.append(torch.stack(terms).sum())
    return torch.stack(values)


def random_logits(*, rows: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(rows, VOCAB, generator=generator, dtype=torch.float64)
    student = 2 * torch.randn(rows, VOCAB, generator=generator, dtype=torch.float64)
    return teacher, student


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
@pytest.mark.parametrize("k", [1, 2, 5, VOCAB])
def test_value_and_gradient_equal_brute_force(kind: str, tail: str, k: int) -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=k)
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    value = divergence(kind, ours, targets, tail=tail)  # type: ignore[arg-type]
    expected = brute_force(kind, theirs, targets, tail=tail)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    weights = torch.arange(1.0, len(student) + 1).double()
    torch.autograd.backward((value * weights).sum())
    torch.autograd.backward((expected * weights).sum())
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_whole_vocabulary_equals_the_dense_divergence(kind: str) -> None:
    teacher, student = random_logits()
    p, q = teacher.log_softmax(1), student.log_softmax(1)
    dense = (p.exp() * (p - q)).sum(1) if kind == "forward_kl" else (q.exp() * (q - p)).sum(1)
    torch.testing.assert_close(divergence(kind, student, teacher_targets(teacher, k=VOCAB)), dense)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_bucket_is_a_lower_bound_that_tightens(kind: str) -> None:
    teacher, student = random_logits(rows=40, seed=3)
    bounds = [divergence(kind, student, teacher_targets(teacher, k=k)) for k in (1, 3, 6, VOCAB)]
    for looser, tighter in pairwise(bounds):
        assert bool((looser <= tighter + 1e-12).all())


def test_forward_kl_gradient_on_the_head_is_q_minus_p() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=4)
    logits = student.requires_grad_()
    torch.autograd.backward(divergence("forward_kl", logits, targets).sum())
    assert logits.grad is not None
    q = student.detach().softmax(1)
    expected = q.gather(1, targets.ids) - targets.logprobs.exp()
    torch.testing.assert_close(logits.grad.gather(1, targets.ids), expected)


def test_forward_kl_gradient_on_the_tail() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=4)
    logits = student.requires_grad_()
    torch.autograd.backward(divergence("forward_kl", logits, targets).sum())
    assert logits.grad is not None
    q = student.detach().softmax(1).scatter(1, targets.ids, 0.0)
    expected = q * (1 - targets.tail_logmass.exp() / q.sum(1))[:, None]
    outside = torch.ones_like(q).scatter(1, targets.ids, 0.0).bool()
    torch.testing.assert_close(logits.grad[outside], expected[outside])


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("k", [1, 4, VOCAB])
def test_teacher_equal_to_student_gives_zero(kind: str, k: int) -> None:
    teacher, _ = random_logits()
    logits = teacher.clone().requires_grad_()
    value = divergence(kind, logits, teacher_targets(teacher, k=k))
    torch.autograd.backward(value.sum())
    assert logits.grad is not None
    assert float(value.detach().abs().max()) < 1e-12
    assert float(logits.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_impossible_events_are_finite_in_value_and_gradient(kind: str, tail: str) -> None:
    logits = torch.zeros(4, VOCAB)
    logits[1, 5:] = float("-inf")  # the student rules out tokens, as the vocabulary mask does
    logits[2, 0] = 500.0  # nothing left for the tail
    logits[3, 1:] = float("-inf")
    logits.requires_grad_()
    ids = torch.arange(5).repeat(4, 1)
    logprobs = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25), float("-inf"), float("-inf")]).repeat(4, 1)
    targets = SparseTargets(ids, logprobs, torch.full((4,), float("-inf")))
    value = divergence(kind, logits, targets, tail=tail)  # type: ignore[arg-type]
    assert bool(torch.isfinite(value).all())
    torch.autograd.backward(value.sum())
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_small_tails_keep_their_digits() -> None:
    # A tail of 1e-7: in float32, 1 - sum(q) is off by tens of percent, and the divergence with it.
    logits = torch.tensor([[16.0, 15.0, -0.5, -0.7, -1.0]])
    targets = SparseTargets(
        torch.tensor([[0, 1]]), torch.log(torch.tensor([[0.6, 0.3]])), torch.log(torch.tensor([0.1]))
    )
    exact = divergence("forward_kl", logits.double(), targets)
    torch.testing.assert_close(divergence("forward_kl", logits, targets).double(), exact, rtol=1e-5, atol=0)


def test_no_positions_give_no_values() -> None:
    targets = SparseTargets(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3), torch.empty(0))
    assert divergence("forward_kl", torch.empty(0, VOCAB), targets).shape == (0,)


def test_unknown_names_are_refused() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=3)
    with pytest.raises(ConfigError, match="divergence=kl is unknown"):
        divergence("kl", student, targets)
    with pytest.raises((ConfigError, TypeCheckError), match="drop"):
        divergence("forward_kl", student, targets, tail="drop")  # type: ignore[arg-type]


def test_sampled_targets_are_refused() -> None:
    teacher, student = random_logits()
    targets = teacher_targets(teacher, k=3)
    counted = SparseTargets(targets.ids, targets.logprobs, targets.tail_logmass, counts=torch.ones_like(targets.ids))
    with pytest.raises(ConfigError, match="were sampled"):
        divergence("forward_kl", student, counted)
