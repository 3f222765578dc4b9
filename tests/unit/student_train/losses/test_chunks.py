"""How chunks add up: the same loss and gradients for every size, padding and frozen heads, scaling from above."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from student_train.losses.chunks import summed_loss
from student_train.losses.head import Head
from student_train.losses.metrics import METRICS
from student_train.losses.positions import LossForm, Positions

VOCAB, PADDED, HIDDEN, ROWS = 50, 64, 16, 23
TEXT = LossForm(ce_weight=1.0).rows


def problem() -> tuple[Tensor, Tensor, Positions]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(PADDED, HIDDEN, generator=generator, dtype=torch.float64, requires_grad=True)
    return hidden, matrix, Positions(None, torch.randint(VOCAB, (ROWS,), generator=generator))


def cross_entropy(hidden: Tensor, matrix: Tensor, positions: Positions) -> Tensor:
    assert positions.labels is not None
    return torch.nn.functional.cross_entropy(hidden @ matrix[:VOCAB].T, positions.labels, reduction="sum")


@pytest.mark.parametrize("rows", [1, 5, 23, 100])
def test_no_size_of_chunks_changes_loss_or_gradients(rows: int) -> None:
    hidden, matrix, positions = problem()
    loss, metrics = summed_loss(hidden, Head(matrix, VOCAB, chunk_bytes=4 * VOCAB * rows), positions, TEXT)
    expected = cross_entropy(hidden, matrix, positions)
    torch.testing.assert_close(loss, expected)
    assert float(metrics[METRICS.index("ce")]) == pytest.approx(float(expected.detach()))
    ours, plain = (torch.autograd.grad(each, (hidden, matrix)) for each in (loss, expected))
    torch.testing.assert_close(ours, plain)


def test_the_gradient_scales_with_what_comes_from_above() -> None:
    hidden, matrix, positions = problem()
    head = Head(matrix, VOCAB)
    once = torch.autograd.grad(summed_loss(hidden, head, positions, TEXT)[0], (hidden, matrix))
    quarter = torch.autograd.grad(0.25 * summed_loss(hidden, head, positions, TEXT)[0], (hidden, matrix))
    torch.testing.assert_close(quarter, tuple(whole / 4 for whole in once))


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, matrix, positions = problem()
    frozen = matrix.detach()
    summed_loss(hidden, Head(frozen, VOCAB), positions, TEXT)[0].backward()  # type: ignore[no-untyped-call]
    (expected,) = torch.autograd.grad(cross_entropy(hidden, frozen, positions), hidden)
    assert frozen.grad is None
    torch.testing.assert_close(hidden.grad, expected)


def test_padding_of_the_embedding_gets_no_probability_and_no_gradient() -> None:
    hidden, matrix, positions = problem()
    inflated = matrix.detach().clone()
    inflated[VOCAB:] = 100.0
    inflated.requires_grad_()
    plain, fused = (summed_loss(hidden, Head(each, VOCAB), positions, TEXT)[0] for each in (matrix, inflated))
    assert float(fused.detach()) == float(plain.detach())
    (on_head,) = torch.autograd.grad(fused, inflated)
    assert float(on_head[VOCAB:].abs().max()) == 0.0 < float(on_head[:VOCAB].abs().min())


def test_without_grad_nothing_is_differentiated() -> None:
    hidden, matrix, positions = problem()
    with torch.no_grad():
        loss, _ = summed_loss(hidden, Head(matrix, VOCAB), positions, TEXT)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, cross_entropy(hidden, matrix, positions).detach())
