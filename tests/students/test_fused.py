"""The fused losses against the reference form, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from configs.errors import ModelError
from student_train.divergences import KINDS, divergence
from student_train.fused import METRICS, LossSums, fused_cross_entropy, fused_divergence
from student_train.targets import SparseTargets

VOCAB, PADDED, HIDDEN, ROWS = 50, 64, 16, 23
SMALL_CHUNKS = 4 * VOCAB * 5
"""Five positions a chunk: 23 rows make four whole chunks and a rest."""


def problem(*, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, SparseTargets]:
    generator = torch.Generator().manual_seed(k)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(PADDED, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(VOCAB, (ROWS,), generator=generator)
    logprobs = (2 * torch.randn(ROWS, VOCAB, generator=generator)).log_softmax(1)
    top, ids = logprobs.topk(k, dim=1)
    tail = logprobs.scatter(1, ids, float("-inf")).logsumexp(1) if k < VOCAB else torch.full((ROWS,), float("-inf"))
    return hidden, head, labels, SparseTargets(ids, top, tail)


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


def reference_logits(hidden: Tensor, head: Tensor, *, softcap: float | None) -> Tensor:
    logits = hidden.float() @ head.float()[:VOCAB].T
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("k", [1, 7, VOCAB])
@pytest.mark.parametrize("ce_weight", [0.0, 0.3])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_equals_the_reference(kind: str, k: int, ce_weight: float, softcap: float | None) -> None:
    hidden, head, labels, targets = problem(k=k)
    fused = fused_divergence(
        kind,
        hidden,
        head,
        targets,
        labels=labels,
        vocab=VOCAB,
        ce_weight=ce_weight,
        softcap=softcap,
        chunk_bytes=SMALL_CHUNKS,
    )
    logits = reference_logits(hidden, head, softcap=softcap)
    apart = divergence(kind, logits, targets).sum()
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    expected = apart + ce_weight * ce
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    named = dict(zip(METRICS, fused.metrics.tolist(), strict=True))
    assert named["kl"] == pytest.approx(float(apart.detach()), rel=1e-5)
    assert named["ce"] == pytest.approx(float(ce.detach()), rel=1e-5)
    assert named["agreement"] == float((logits.argmax(1) == targets.ids[:, 0]).sum())
    assert named["teacher_mass"] == pytest.approx(float(targets.logprobs.exp().sum()), rel=1e-5)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_cross_entropy_equals_torch(softcap: float | None) -> None:
    hidden, head, labels, _ = problem(k=3)
    fused = fused_cross_entropy(hidden, head, labels=labels, vocab=VOCAB, softcap=softcap, chunk_bytes=SMALL_CHUNKS)
    logits = reference_logits(hidden, head, softcap=softcap)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert fused.metrics[METRICS.index("agreement")] == float((logits.argmax(1) == labels).sum())


def test_renormalised_tail_equals_the_reference() -> None:
    hidden, head, labels, targets = problem(k=6)
    fused = fused_divergence("reverse_kl", hidden, head, targets, labels=labels, vocab=VOCAB, tail="renormalize")
    expected = divergence("reverse_kl", hidden @ head[:VOCAB].T, targets, tail="renormalize").sum()
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(fused.loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_padding_of_the_embedding_gets_no_probability_and_no_gradient() -> None:
    hidden, head, labels, targets = problem(k=6)
    inflated = head.detach().clone()
    inflated[VOCAB:] = 100.0
    inflated.requires_grad_()
    plain = fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=VOCAB)
    fused = fused_divergence("forward_kl", hidden, inflated, targets, labels=labels, vocab=VOCAB)
    assert float(fused.loss.detach()) == float(plain.loss.detach())
    (on_head,) = gradients(fused.loss, inflated)
    assert float(on_head[VOCAB:].abs().max()) == 0.0


def test_the_gradient_scales_with_what_comes_from_above() -> None:
    hidden, head, labels, targets = problem(k=6)
    once = gradients(
        fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=VOCAB).loss, hidden, head
    )
    loss = fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=VOCAB).loss * 0.25
    for quarter, whole in zip(gradients(loss, hidden, head), once, strict=True):
        torch.testing.assert_close(quarter, whole / 4)


def test_float64_gradient_by_finite_differences() -> None:
    hidden, head, labels, targets = problem(k=4, dtype=torch.float64)

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        fused = fused_divergence("reverse_kl", hidden, head, targets, labels=labels, vocab=VOCAB, ce_weight=0.5)
        return fused.loss

    assert torch.autograd.gradcheck(loss, (hidden, head))


def test_bfloat16_stays_close_to_float32() -> None:
    hidden, head, labels, targets = problem(k=6)
    exact = fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=VOCAB)
    low_hidden, low_head = low = [leaf.detach().bfloat16().requires_grad_() for leaf in (hidden, head)]
    rough = fused_divergence(
        "forward_kl", low_hidden, low_head, targets, labels=labels, vocab=VOCAB, chunk_bytes=SMALL_CHUNKS
    )
    torch.testing.assert_close(rough.loss, exact.loss, rtol=2e-2, atol=0)
    for ours, theirs in zip(gradients(rough.loss, *low), gradients(exact.loss, hidden, head), strict=True):
        assert ours.dtype == torch.bfloat16
        assert float(torch.nn.functional.cosine_similarity(ours.float().flatten(), theirs.flatten(), dim=0)) > 0.999


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_no_positions_give_zero_and_zero_gradients(loss: str) -> None:
    _, head, _, _ = problem(k=6)
    hidden = torch.empty(0, HIDDEN, requires_grad=True)
    labels = torch.empty(0, dtype=torch.int64)
    targets = SparseTargets(torch.empty(0, 6, dtype=torch.int64), torch.empty(0, 6), torch.empty(0))
    sums: LossSums
    if loss == "kd":
        sums = fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=VOCAB)
    else:
        sums = fused_cross_entropy(hidden, head, labels=labels, vocab=VOCAB)
    on_hidden, on_head = gradients(sums.loss, hidden, head)
    assert float(sums.loss.detach()) == 0.0
    assert on_hidden.shape == hidden.shape
    assert float(on_head.abs().max()) == 0.0


def test_ids_outside_the_vocabulary_are_refused() -> None:
    hidden, head, labels, targets = problem(k=6)
    with pytest.raises(ModelError, match="token id 55 lies outside the student's vocabulary of 50"):
        fused_cross_entropy(hidden, head, labels=torch.full_like(labels, 55), vocab=VOCAB)
    with pytest.raises(ModelError, match="vocabulary of 65 tokens but the student's head has 64 rows"):
        fused_divergence("forward_kl", hidden, head, targets, labels=labels, vocab=65)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the most elements that any one result has."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_nothing_of_positions_by_vocabulary_exists() -> None:
    rows, vocab = 4000, 50
    hidden = torch.randn(rows, HIDDEN, requires_grad=True)
    head = torch.randn(vocab, HIDDEN, requires_grad=True)
    labels = torch.zeros(rows, dtype=torch.int64)
    with LargestTensor() as largest:
        sums = fused_cross_entropy(hidden, head, labels=labels, vocab=vocab, chunk_bytes=4 * vocab * 100)
        torch.autograd.backward(sums.loss)
    assert 0 < largest.elements < rows * vocab / 2
