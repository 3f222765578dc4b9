"""Probabilities by rank against loops in float64, the gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from student_train.losses.head import Head
from student_train.losses.ranks import best_ids, ranked_distance
from student_train.losses.targets import SparseTargets

VOCAB, HIDDEN, ROWS = 11, 5, 6


def student(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((ROWS, HIDDEN), (VOCAB, HIDDEN))
    hidden, weight = (torch.randn(s, generator=draw, dtype=torch.float64, requires_grad=True) for s in shapes)
    return hidden, weight


def teacher(*, vocab: int, k: int, seed: int = 5) -> SparseTargets:
    draw = torch.Generator().manual_seed(seed)
    logprobs = (2 * torch.randn(ROWS, vocab, generator=draw, dtype=torch.float64)).log_softmax(1)
    top = logprobs.topk(k, dim=1)
    rest = logprobs.scatter(1, top.indices, float("-inf")).logsumexp(1)
    # Ids that are none of the student's: they mean nothing here.
    return SparseTargets(top.indices + 1000, top.values, rest)


def by_loops(logits: list[list[float]], told: SparseTargets) -> float:
    total = 0.0
    assert told.logprobs is not None and told.tail_logmass is not None
    for row, kept, tail in zip(logits, told.logprobs.tolist(), told.tail_logmass.tolist(), strict=True):
        z = sum(math.exp(x) for x in row)
        q = sorted((math.exp(x) / z for x in row), reverse=True)
        p = sorted(map(math.exp, kept), reverse=True)
        n = min(len(p), len(q))
        total += sum(abs(a - b) for a, b in zip(p[:n], q[:n], strict=True))
        total += abs(sum(p[n:]) + math.exp(tail) - sum(q[n:]))
    return total


@pytest.mark.parametrize(("vocab", "k"), [(30, 4), (30, 20), (7, 7), (11, 11)])
def test_the_distance_is_that_of_a_loop_over_ranks(vocab: int, k: int) -> None:
    hidden, weight = student()
    told = teacher(vocab=vocab, k=k)
    found = ranked_distance(hidden, Head(weight), told)
    assert found.loss.item() == pytest.approx(by_loops((hidden @ weight.T).tolist(), told), abs=1e-9)
    parts = ranked_distance(hidden, Head(weight, chunk_bytes=2 * 4 * VOCAB), told)
    torch.testing.assert_close(parts.loss, found.loss, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    hidden, weight = student(1)
    told = teacher(vocab=30, k=5)
    assert torch.autograd.gradcheck(lambda h, w: ranked_distance(h, Head(w), told).loss, (hidden, weight))


def test_names_of_tokens_play_no_part() -> None:
    hidden, weight = student(2)
    told = SparseTargets.whole(hidden.detach() @ weight.detach().T)
    turned = weight[torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))]
    assert ranked_distance(hidden, Head(turned), told).loss.item() == pytest.approx(0.0, abs=1e-12)


def test_the_best_ids_come_first_and_no_position_has_none() -> None:
    hidden, weight = student(3)
    found = best_ids(hidden, Head(weight, chunk_bytes=2 * 4 * VOCAB), k=3)
    torch.testing.assert_close(found, (hidden @ weight.T).topk(3, dim=1).indices)
    assert best_ids(hidden[:0], Head(weight), k=3).shape == (0, 3)
    assert ranked_distance(hidden[:0], Head(weight), teacher(vocab=30, k=4)[:0]).loss.item() == 0.0
