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
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from configs.errors import ConfigError, ModelError
from student_train.divergences import Measure, Tail
from student_train.measures import METRICS, cross_entropy, position_metrics
from student_train.targets import SparseTargets

CPU_CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk's float32 logits on a CPU: past a few hundred rows larger chunks gain nothing there."""

LEAST_CHUNK_BYTES = 32 * 2**20
"""Below this, reading the head again for every chunk would take most of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """The loss summed over positions, with its graph, and the sums named by `measures.METRICS`, detached, float64."""

    loss: Float[Tensor, ""]
    metrics: Float[Tensor, " M"]


def fused_divergence(
    kind: str,
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    targets: SparseTargets | Float[Tensor, "N V"],
    *,
    labels: Int64[Tensor, " N"] | None = None,
    vocab: int | None = None,
    tail: Tail = "bucket",
    temperature: float = 1.0,
    weight: float = 1.0,
    ce_weight: float = 0.0,
    mask: Bool[Tensor, " N"] | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
    **parameters: float,
) -> LossSums:
    """`weight` x divergence from the teacher + `ce_weight` x cross-entropy on `labels`, summed over positions.

    The divergence is that of `student_train.divergences.divergence` on the logits hidden @ head.T, of which columns
    from `vocab` on (by default none) do not exist: padding of the embedding. Models that squash their logits with tanh
    name the bound as `softcap`. `chunk_bytes` is the memory for a chunk's float32 logits, by default `chunk_budget`.

    Raises:
        ConfigError: as `divergence`, and a `ce_weight` without labels.
        ModelError: an id outside the student's vocabulary.
    """
    if ce_weight and labels is None:
        raise ConfigError(f"ce_weight={ce_weight:g} needs labels: give them or set ce_weight: 0")
    measure = Measure.of(kind, tail=tail, temperature=temperature, parameters=parameters)
    known = SparseTargets.whole(targets) if isinstance(targets, Tensor) else targets
    vocab = len(head) if vocab is None else vocab
    chunk_bytes = chunk_budget(hidden.device) if chunk_bytes is None else chunk_bytes
    form = _LossForm(measure, weight, ce_weight, softcap, vocab, chunk_bytes)
    return _apply(hidden, head, _Positions(known, labels), form, mask=mask)


def fused_cross_entropy(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    *,
    labels: Int64[Tensor, " N"],
    targets: SparseTargets | None = None,
    vocab: int | None = None,
    mask: Bool[Tensor, " N"] | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
) -> LossSums:
    """Cross-entropy on `labels`, summed over positions. `targets` are measured, not learned.

    Raises:
        ModelError: a label or an id outside the student's vocabulary.
    """
    vocab = len(head) if vocab is None else vocab
    chunk_bytes = chunk_budget(hidden.device) if chunk_bytes is None else chunk_bytes
    form = _LossForm(None, 0.0, 1.0, softcap, vocab, chunk_bytes)
    return _apply(hidden, head, _Positions(targets, labels), form, mask=mask)


def chunk_budget(device: torch.device) -> int:
    """Bytes for one chunk's float32 logits.

    On a GPU a 64th of its memory, which keeps its matrix products busy; where that is scarce an eighth of what is
    free, because a chunk needs up to three such tables at once (low-precision logits and gradient beside it). The
    share of the whole comes first so that the same run on the same kind of device adds up in the same order.
    """
    if device.type != "cuda":
        return CPU_CHUNK_BYTES
    free, total = torch.cuda.mem_get_info(device)
    # What torch holds in reserve counts as taken for the device, but is free here.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(LEAST_CHUNK_BYTES, min(total // 64, free // 8))


@dataclass(frozen=True, slots=True)
class _LossForm:
    """The loss as a formula: weight x divergence + ce_weight x cross-entropy, the latter alone without a `measure`."""

    measure: Measure | None
    weight: float
    ce_weight: float
    softcap: float | None
    vocab: int
    chunk_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Positions:
    """What is known about each position besides its hidden state; at least one of the two."""

    targets: SparseTargets | None
    labels: Int64[Tensor, " N"] | None

    @property
    def ids(self) -> Int64[Tensor, "N K"]:
        """The ids whose logits are kept. Without targets the label takes their place: the rest is everything else."""
        if self.targets is not None:
            return self.targets.ids
        assert self.labels is not None
        return self.labels[:, None]

    def __getitem__(self, rows: slice | Tensor) -> _Positions:
        return _Positions(
            None if self.targets is None else self.targets[rows], None if self.labels is None else self.labels[rows]
        )


def _apply(hidden: Tensor, head: Tensor, positions: _Positions, form: _LossForm, *, mask: Tensor | None) -> LossSums:
    if mask is not None:
        hidden, positions = hidden[mask], positions[mask]
    if not 0 < form.vocab <= len(head):
        raise ModelError(f"vocabulary of {form.vocab} tokens but the student's head has {len(head)} rows")
    _check_ids(positions, vocab=form.vocab)
    if form.measure is not None and positions.targets is not None:
        form.measure.check(positions.targets, vocab=form.vocab)
    differentiate = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    loss, metrics = _FusedLoss.apply(hidden, head, positions, form, differentiate)  # type: ignore[no-untyped-call]
    return LossSums(loss, metrics)


def _check_ids(positions: _Positions, *, vocab: int) -> None:
    """One look at all ids: on a GPU this is the only time that the host waits for them."""
    parts = [
        torch.stack(torch.aminmax(ids)) for ids in (positions.ids, positions.labels) if ids is not None and len(ids)
    ]
    if not parts:
        return
    bounds = torch.stack(parts).tolist()
    least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
    if least < 0 or most >= vocab:
        worst = least if least < 0 else most
        raise ModelError(f"token id {worst} lies outside the student's vocabulary of {vocab}")


class _FusedLoss(torch.autograd.Function):
    """One node of the graph: (hidden, head) -> summed loss, with the gradients made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        positions: _Positions,
        form: _LossForm,
        differentiate: bool,  # noqa: FBT001 - autograd functions take positional arguments only
    ) -> tuple[Tensor, Tensor]:
        weight = head[: form.vocab]
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if differentiate else None
        # A frozen head, as beside adapters, needs none.
        on_head = differentiate and ctx.needs_input_grad[1]
        grad_head: Tensor | None = None
        rows = max(1, form.chunk_bytes // (4 * form.vocab))
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            part = hidden[chunk]
            grad_logits = _chunk((part @ weight.T).to(exact), positions[chunk], form, sums, differentiate=differentiate)
            if grad_hidden is not None:
                grad_logits = grad_logits.to(hidden.dtype)
                torch.mm(grad_logits, weight, out=grad_hidden[chunk])
                grad_head = _add_product(grad_head, grad_logits, part) if on_head else None
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden, _like_head(grad_head, head) if on_head else None)
        loss = sums[0].to(exact)
        metrics = sums.clone()
        ctx.mark_non_differentiable(metrics)
        return loss, metrics

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        on_hidden, on_head = (None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return on_hidden, on_head, *[None] * 3


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


def _chunk(logits: Tensor, positions: _Positions, form: _LossForm, sums: Tensor, *, differentiate: bool) -> Tensor:
    """Add one chunk's sums to `sums` and turn `logits` [n, V], in place, into the gradient on the raw logits."""
    slope = None
    if form.softcap is not None:
        logits = logits.div_(form.softcap).tanh_()
        slope = 1.0 - logits.square() if differentiate else None
        logits = logits.mul_(form.softcap)
    kept = logits.gather(1, positions.ids)
    label = None if positions.labels is None else logits.gather(1, positions.labels[:, None])[:, 0]
    logits.scatter_(1, positions.ids, float("-inf"))
    best_rest = logits.amax(dim=1)
    # Rows without a rest (K = V) shift by zero, so that exp gives 0 and not NaN.
    shift = best_rest.masked_fill(best_rest == float("-inf"), 0.0)
    softmax = logits.sub_(shift[:, None]).exp_()
    total = softmax.sum(dim=1)
    rest = total.log() + shift
    with torch.enable_grad():
        leaves = [leaf.requires_grad_(differentiate) for leaf in (kept, rest, label) if leaf is not None]
        parts = _losses(kept, rest, label, positions.targets, form)
        grads = torch.autograd.grad(parts["loss"].sum(), leaves, allow_unused=True) if differentiate else ()
    parts |= position_metrics(kept, rest, best_rest=best_rest, label=label, targets=positions.targets)
    nothing = sums.new_zeros(())
    sums += torch.stack([parts[name].detach().double().sum() if name in parts else nothing for name in METRICS])
    if not differentiate:
        return softmax
    on_kept, on_rest, *on_label = (
        torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)
    )
    share = torch.where(total > 0, on_rest / total, torch.zeros_like(total))
    gradient = softmax.mul_(share[:, None]).scatter_(1, positions.ids, on_kept)
    if positions.labels is not None:
        gradient.scatter_add_(1, positions.labels[:, None], on_label[0][:, None])
    return gradient if slope is None else gradient.mul_(slope)


def _losses(
    kept: Tensor, rest: Tensor, label: Tensor | None, targets: SparseTargets | None, form: _LossForm
) -> dict[str, Tensor]:
    """The loss of each position and its parts, by their names in `METRICS`."""
    parts: dict[str, Tensor] = {}
    loss = torch.zeros_like(rest)
    if form.measure is not None and targets is not None:
        parts["divergence"] = form.measure.rows(targets, kept, rest)
        loss = loss + form.weight * parts["divergence"]
    if label is not None:
        parts["ce"] = cross_entropy(kept, rest, label)
        loss = loss + form.ce_weight * parts["ce"] if form.ce_weight else loss
    return {"loss": loss, **parts}
