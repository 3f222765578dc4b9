"""Losses from hidden states and head in one pass, without a table of positions by vocabulary.

The positions are taken in chunks. Of a chunk's logits only three things matter to any loss: the logits at the
teacher's ids, the log-sum-exp of all others, and the logit of the label. The loss is written on those small tensors,
autograd differentiates it there, and its gradient is spread over the chunk's logits in place: the kept ids and the
label get theirs directly, all others share theirs in proportion to softmax. From that follow the chunk's share of the
hidden states' and the head's gradient, and the logits are dropped. Nothing of size N x V outlives a chunk, and the head
is multiplied once forward and twice backward, as in the plain form.

Gradients are computed in the forward pass, so the result is a *sum* over positions; the caller scales it as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from configs.errors import ModelError
from student_train.divergences import Tail, agreement, cross_entropy, event_logprobs, kind_function
from student_train.targets import SparseTargets

CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk's float32 logits. Larger chunks waste nothing; smaller ones re-read the head more often."""

METRICS = ("loss", "ce", "kl", "agreement", "teacher_mass")
"""What `LossSums.metrics` holds, each summed over positions."""


@dataclass(frozen=True, slots=True)
class LossForm:
    """What is computed from the logits: divergence + ce_weight x cross-entropy.

    `kind` None is cross-entropy alone. Columns from `vocab` on do not exist for the student (padding of the
    embedding). `softcap` is the bound of models that squash their logits with tanh.
    """

    kind: str | None
    vocab: int
    tail: Tail = "bucket"
    ce_weight: float = 0.0
    softcap: float | None = None
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """The loss summed over positions, with its graph, and the sums named by `METRICS`, detached."""

    loss: Float[Tensor, ""]
    metrics: Float[Tensor, " M"]


def fused_divergence(
    kind: str,
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    targets: SparseTargets,
    *,
    labels: Int64[Tensor, " N"],
    vocab: int,
    tail: Tail = "bucket",
    ce_weight: float = 0.0,
    softcap: float | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> LossSums:
    """Divergence from the teacher + `ce_weight` x cross-entropy on `labels`, summed over positions.

    Raises:
        ConfigError: an unknown kind or tail.
        ModelError: an id outside the student's vocabulary.
    """
    kind_function(kind, targets=targets)
    form = LossForm(kind, vocab, tail, ce_weight, softcap, chunk_bytes)
    return _apply(hidden, head, labels, targets, form)


def fused_cross_entropy(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    *,
    labels: Int64[Tensor, " N"],
    vocab: int,
    softcap: float | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> LossSums:
    """Cross-entropy on `labels`, summed over positions.

    Raises:
        ModelError: a label outside the student's vocabulary.
    """
    # The label itself takes the place of the kept ids: the rest of the vocabulary is then everything else.
    targets = SparseTargets(
        labels[:, None],
        torch.zeros_like(labels[:, None], dtype=torch.float32),
        torch.full_like(labels, float("-inf"), dtype=torch.float32),
    )
    form = LossForm(None, vocab, softcap=softcap, chunk_bytes=chunk_bytes)
    return _apply(hidden, head, labels, targets, form)


def _apply(hidden: Tensor, head: Tensor, labels: Tensor, targets: SparseTargets, form: LossForm) -> LossSums:
    if not 0 < form.vocab <= head.shape[0]:
        raise ModelError(f"vocabulary of {form.vocab} tokens but the student's head has {head.shape[0]} rows")
    if len(targets) and (worst := int(torch.maximum(targets.ids.max(), labels.max()))) >= form.vocab:
        raise ModelError(f"token id {worst} lies outside the student's vocabulary of {form.vocab}")
    differentiate = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    loss, metrics = _FusedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head, labels, targets, form, differentiate
    )
    return LossSums(loss, metrics)


class _FusedLoss(torch.autograd.Function):
    """One node of the graph: (hidden, head) -> summed loss, with the gradients made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        labels: Tensor,
        targets: SparseTargets,
        form: LossForm,
        differentiate: bool,  # noqa: FBT001 - autograd functions take positional arguments only
    ) -> tuple[Tensor, Tensor]:
        weight = head[: form.vocab]
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if differentiate else None
        grad_head: Tensor | None = None
        rows = max(1, form.chunk_bytes // (4 * form.vocab))
        for start in range(0, len(targets), rows):
            stop = min(start + rows, len(targets))
            part = hidden[start:stop]
            logits = (part @ weight.T).to(exact)
            grad_logits = _chunk(
                logits, labels[start:stop], targets.rows(start, stop), form, sums, differentiate=differentiate
            )
            if grad_hidden is not None:
                grad_logits = grad_logits.to(hidden.dtype)
                torch.mm(grad_logits, weight, out=grad_hidden[start:stop])
                grad_head = _add_product(grad_head, grad_logits, part)
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden, _like_head(grad_head, head))
        loss = sums[0].to(exact)
        metrics = sums.clone()
        ctx.mark_non_differentiable(metrics)
        return loss, metrics

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad_loss.to(grad_hidden.dtype), grad_head * grad_loss.to(grad_head.dtype), *[None] * 4


def _add_product(total: Tensor | None, grad_logits: Tensor, hidden: Tensor) -> Tensor:
    """`total` + grad_logits^T hidden. One chunk needs no sum; several are summed in at least float32.

    A table of the head's size is large: none is filled with zeros, copied or converted without need.
    """
    if total is None:
        return grad_logits.T @ hidden
    if hidden.dtype in (torch.float32, torch.float64):
        return total.addmm_(grad_logits.T, hidden)
    return total.float().add_(grad_logits.T @ hidden)


def _like_head(grad: Tensor | None, head: Tensor) -> Tensor:
    """The gradient in the head's shape and dtype: zero for padding of the embedding, or where there was nothing."""
    if grad is None:
        return torch.zeros_like(head)
    if grad.shape == head.shape:
        return grad.to(head.dtype)
    whole = torch.empty_like(head)
    whole[: len(grad)] = grad
    whole[len(grad) :] = 0
    return whole


def _chunk(
    logits: Tensor, labels: Tensor, targets: SparseTargets, form: LossForm, sums: Tensor, *, differentiate: bool
) -> Tensor:
    """Add one chunk's sums to `sums` and turn `logits` [n, V], in place, into the gradient on the raw logits."""
    slope = None
    if form.softcap is not None:
        logits = logits.div_(form.softcap).tanh_()
        slope = 1.0 - logits.square() if differentiate else None
        logits = logits.mul_(form.softcap)
    kept = logits.gather(1, targets.ids)
    label = logits.gather(1, labels[:, None])
    logits.scatter_(1, targets.ids, float("-inf"))
    best_rest = logits.amax(dim=1)
    # Rows without a rest (K = V) shift by zero, so that exp gives 0 and not NaN.
    shift = best_rest.masked_fill(best_rest == float("-inf"), 0.0)
    softmax = logits.sub_(shift[:, None]).exp_()
    total = softmax.sum(dim=1)
    rest = total.log() + shift
    with torch.enable_grad():
        leaves = [leaf.requires_grad_(differentiate) for leaf in (kept, rest, label)]
        loss, rows = _rows(kept, rest, label[:, 0], targets, form)
        grads = torch.autograd.grad(loss.sum(), leaves, allow_unused=True) if differentiate else ()
    match = agreement(kept.detach(), best_rest, targets.logprobs.argmax(dim=1))
    mass = targets.logprobs.to(torch.float64).exp().sum()
    sums += torch.stack([*(row.detach().sum(dtype=torch.float64) for row in (loss, *rows)), match.sum().double(), mass])
    if not differentiate:
        return softmax
    on_kept, on_rest, on_label = (
        torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)
    )
    share = torch.where(total > 0, on_rest / total, torch.zeros_like(total))
    gradient = softmax.mul_(share[:, None]).scatter_(1, targets.ids, on_kept).scatter_add_(1, labels[:, None], on_label)
    return gradient if slope is None else gradient.mul_(slope)


def _rows(
    kept: Tensor, rest: Tensor, label: Tensor, targets: SparseTargets, form: LossForm
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The loss of each position, and its parts: cross-entropy and divergence."""
    ce = cross_entropy(kept, rest, label)
    if form.kind is None:
        return ce, (ce, torch.zeros_like(ce))
    teacher, student = event_logprobs(targets, kept, rest, tail=form.tail)
    apart = kind_function(form.kind, targets=targets)(teacher, student)
    return apart + form.ce_weight * ce, (ce, apart)
