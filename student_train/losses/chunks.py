"""How a chunk of logits becomes a loss and its gradient.

Of a chunk's logits only three things matter to any loss: the logits at the kept ids, the log-sum-exp of all others, and
the logit of the label. The loss is written on those small tensors (`student_train.losses.positions`), autograd
differentiates it there, and its gradient is spread over the chunk's logits in place: the kept ids and the label get
theirs directly, all others share theirs in proportion to softmax. From that follow the chunk's share of the hidden
states' and the head's gradient, and the logits are dropped. Nothing of size N x V outlives a chunk, and the head is
multiplied once forward and twice backward, as in the plain form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from student_train.losses.head import Head, exact_dtype
from student_train.losses.metrics import METRICS, position_metrics
from student_train.losses.passes import row_sums, spread
from student_train.losses.positions import PositionLoss, Positions


def summed_loss(
    hidden: Float[Tensor, "N H"], head: Head, positions: Positions, loss: PositionLoss
) -> tuple[Float[Tensor, ""], Float[Tensor, " M"]]:
    """The loss summed over positions, with its graph, and the sums named by `metrics.METRICS`."""
    differentiate = torch.is_grad_enabled() and (hidden.requires_grad or head.weight.requires_grad)
    total, sums = _FusedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head, positions, loss, differentiate
    )
    return total, sums


class _FusedLoss(torch.autograd.Function):
    """One node of the graph: (hidden, head) -> summed loss, with the gradients made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        head: Head,
        positions: Positions,
        position_loss: PositionLoss,
        differentiate: bool,  # noqa: FBT001 - autograd functions take positional arguments only
    ) -> tuple[Tensor, Tensor]:
        weight = matrix[: head.tokens]
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if differentiate else None
        # A frozen head, as beside adapters, needs none.
        on_head = differentiate and ctx.needs_input_grad[1]
        grad_head: Tensor | None = None
        chunks = list(head.chunks(hidden, tables=positions.tables))
        # One chunk's product is the gradient; several are summed in at least float32.
        sum_dtype = hidden.dtype if len(chunks) == 1 else exact_dtype(hidden)
        for chunk in chunks:
            part = hidden[chunk]
            # No name here keeps the table alive beside its low-precision copy.
            told = positions.chunk(chunk)
            grad_logits = _chunk(
                head.raw_logits(part), told, position_loss, head.softcap, sums, differentiate=differentiate
            )
            if grad_hidden is not None:
                grad_logits = grad_logits.to(hidden.dtype)
                torch.mm(grad_logits, weight, out=grad_hidden[chunk])
                grad_head = _add_product(grad_head, grad_logits, part, sum_dtype) if on_head else None
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden, _like_head(grad_head, matrix) if on_head else None)
        loss = sums[0].to(exact_dtype(hidden))
        metrics = sums.clone()
        ctx.mark_non_differentiable(metrics)
        return loss, metrics

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        on_hidden, on_head = (None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return on_hidden, on_head, *[None] * 4


def _add_product(total: Tensor | None, grad_logits: Tensor, hidden: Tensor, sum_dtype: torch.dtype) -> Tensor:
    """`total` + grad_logits^T hidden.

    A table of the head's size is large: none is filled with zeros, copied or converted without need. On a GPU the
    product itself adds to the sum.
    """
    if hidden.is_cuda and hidden.dtype != sum_dtype:
        if total is None:
            return torch.mm(grad_logits.T, hidden, out_dtype=sum_dtype)
        return torch.addmm(total, grad_logits.T, hidden, out_dtype=sum_dtype, out=total)
    if total is None:
        return grad_logits.T @ hidden
    if hidden.dtype == sum_dtype:
        return total.addmm_(grad_logits.T, hidden)
    return total.to(sum_dtype).add_(grad_logits.T @ hidden)


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
    logits: Tensor,
    positions: Positions,
    position_loss: PositionLoss,
    softcap: float | None,
    sums: Tensor,
    *,
    differentiate: bool,
) -> Tensor:
    """Add one chunk's sums to `sums` and turn `logits` [n, V], in place, into the gradient on the raw logits."""
    slope = None
    if softcap is not None:
        logits = logits.div_(softcap).tanh_()
        slope = 1.0 - logits.square() if differentiate else None
        logits = logits.mul_(softcap)
    exact = exact_dtype(logits)
    label = None if positions.labels is None else logits.gather(1, positions.labels[:, None])[:, 0].to(exact)
    whole = positions.targets is not None and positions.targets.in_order
    if whole:
        kept, best_rest = logits.to(exact), logits.new_full((len(logits),), float("-inf"), dtype=exact)
        rest = best_rest.clone()
    else:
        kept = logits.gather(1, positions.ids).to(exact)
        logits.scatter_(1, positions.ids, float("-inf"))
        best_rest, shift, total = row_sums(logits)
        rest = total.log() + shift
    with torch.enable_grad():
        leaves = [leaf.requires_grad_(differentiate) for leaf in (kept, rest, label) if leaf is not None]
        parts = position_loss(positions, kept, rest, label)
        grads = torch.autograd.grad(parts["loss"].sum(), leaves, allow_unused=True) if differentiate else ()
    parts |= position_metrics(kept, rest, best_rest=best_rest, label=label, targets=positions.targets)
    nothing = sums.new_zeros(())
    sums += torch.stack([parts[name].detach().double().sum() if name in parts else nothing for name in METRICS])
    if not differentiate:
        return logits
    on_kept, on_rest, *on_label = (
        torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)
    )
    if whole:
        # What autograd made is the table of gradients already.
        return _with_label(on_kept.to(logits.dtype), positions, on_label, slope=slope)
    share = torch.where(total > 0, on_rest / total, torch.zeros_like(total))
    # In place: the table becomes the gradient. The derivative by the log-sum-exp of the rest is shared among its tokens
    # in proportion to their exponentials (0 at the kept ids, which then get their own).
    spread(logits, shift=shift, share=share)
    logits.scatter_(1, positions.ids, on_kept.to(logits.dtype))
    return _with_label(logits, positions, on_label, slope=slope)


def _with_label(table: Tensor, positions: Positions, on_label: Sequence[Tensor], *, slope: Tensor | None) -> Tensor:
    """The gradient on the raw logits: with what the label's logit got, and through the bound."""
    if positions.labels is not None:
        table.scatter_add_(1, positions.labels[:, None], on_label[0][:, None].to(table.dtype))
    return table if slope is None else table.mul_(slope)
