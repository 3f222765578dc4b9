"""Losses on hidden tokens: what a student, and its teacher, believe of them over the vocabulary.

Logits exist for a chunk of hidden tokens at a time, of student and teacher both: loss and gradient are made on the way
forward (as in `student_train.losses.chunks`), so nothing of size N x V outlives a chunk, and a weight that is whole
only inside the forward pass of its module is not needed again. Encoders have a bias behind their output matrix, and
the teacher's whole distribution is at hand; so the form is another than that of language models.

Shapes: N hidden tokens, V tokens of the vocabulary, H the width before the output layer (the teacher's may differ).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from configs.errors import ModelError
from student_train.losses.fused import LossSums
from student_train.losses.head import chunk_budget, exact_dtype
from student_train.losses.logits import label_cross_entropy, soft_cross_entropy
from student_train.losses.metrics import METRICS


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """What stands before an output layer at hidden tokens, and that layer; rows from `vocab` on are no tokens."""

    states: Float[Tensor, "N H"]
    weight: Float[Tensor, "W H"]
    bias: Float[Tensor, " W"] | None
    vocab: int

    def __post_init__(self) -> None:
        if not 0 < self.vocab <= len(self.weight):
            raise ModelError(
                f"the tokenizer has {self.vocab} tokens and an output layer {len(self.weight)}: name a model whose "
                "tokenizer is its own"
            )

    @torch.no_grad()
    def logits(self, chunk: slice) -> Float[Tensor, "n V"]:
        """Of some of the tokens, in float32 at least."""
        found = self.states[chunk] @ self.weight[: self.vocab].T
        if self.bias is not None:
            found += self.bias[: self.vocab]
        return found.to(exact_dtype(found))


@dataclass(frozen=True, slots=True)
class WordForm:
    """`lm_weight` x cross-entropy on the right token + `soft_weight` x T^2 KL(teacher ‖ student) at `temperature` T."""

    lm_weight: float
    soft_weight: float
    temperature: float

    def rows(
        self, student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"] | None, labels: Int64[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The loss of every hidden token, in nats."""
        loss = self.lm_weight * label_cross_entropy(student, labels)
        if self.soft_weight:
            assert teacher is not None, "soft targets without a teacher"
            loss = loss + self.soft_weight * soft_cross_entropy(student, teacher, temperature=self.temperature)
        return loss


def word_sums(
    student: Words,
    labels: Int64[Tensor, " N"],
    form: WordForm,
    *,
    teacher: Words | None = None,
    chunk_bytes: int | None = None,
) -> LossSums:
    """The loss summed over hidden tokens; no token gives zero, and zero gradients.

    `chunk_bytes` is the memory of one chunk's logits.
    """
    differentiate = torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in (student.states, student.weight, student.bias)
    )
    budget = chunk_budget(student.states.device) if chunk_bytes is None else chunk_bytes
    total, sums = _WordLoss.apply(  # type: ignore[no-untyped-call]
        student.states, student.weight, student.bias, student, teacher, labels, form, budget, differentiate
    )
    return LossSums(total, sums)


class _WordLoss(torch.autograd.Function):
    """One node of the graph: (states, matrix, bias) -> summed loss, with the gradients made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        student: Words,
        teacher: Words | None,
        labels: Tensor,
        form: WordForm,
        budget: int,
        differentiate: bool,  # noqa: FBT001 - autograd functions take positional arguments only
    ) -> tuple[Tensor, Tensor]:
        exact, vocab = exact_dtype(states), student.vocab
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=states.device)
        on_states = torch.zeros_like(states) if differentiate else None
        # A frozen output layer needs none.
        on_weight = torch.zeros_like(weight, dtype=exact) if differentiate and ctx.needs_input_grad[1] else None
        on_bias = None
        if bias is not None and differentiate and ctx.needs_input_grad[2]:
            on_bias = torch.zeros_like(bias, dtype=exact)
        for chunk in _chunks(len(states), vocab=vocab, budget=budget):
            believed = None if teacher is None else teacher.logits(chunk)
            logits = student.logits(chunk)
            with torch.enable_grad():
                loss = form.rows(logits.requires_grad_(differentiate), believed, labels[chunk])
                slope = torch.autograd.grad(loss.sum(), logits)[0] if differentiate else None
            sums += _measured(loss.detach(), logits.detach(), believed, labels[chunk])
            if slope is None:
                continue
            assert on_states is not None
            on_states[chunk] = slope.to(states.dtype) @ weight[:vocab]
            if on_weight is not None:
                on_weight[:vocab] += slope.T @ states[chunk].to(exact)
            if on_bias is not None:
                on_bias[:vocab] += slope.sum(dim=0)
        ctx.save_for_backward(
            on_states,
            None if on_weight is None else on_weight.to(weight.dtype),
            None if on_bias is None or bias is None else on_bias.to(bias.dtype),
        )
        metrics = sums.clone()
        ctx.mark_non_differentiable(metrics)
        return sums[0].to(exact), metrics

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return *found, *[None] * 6


def _chunks(count: int, *, vocab: int, budget: int) -> Iterator[slice]:
    rows = max(1, budget // (4 * vocab))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _measured(
    loss: Float[Tensor, " n"],
    student: Float[Tensor, "n V"],
    teacher: Float[Tensor, "n V"] | None,
    labels: Int64[Tensor, " n"],
) -> Float[Tensor, " M"]:
    """Sums over the tokens of a chunk by `METRICS`."""
    chosen = student.argmax(dim=1)
    found = {"loss": loss, "ce": label_cross_entropy(student, labels), "accuracy": chosen == labels}
    if teacher is not None:
        found["divergence"] = soft_cross_entropy(student, teacher, temperature=1.0)
        found["agreement"] = chosen == teacher.argmax(dim=1)
    sums = torch.zeros(len(METRICS), dtype=torch.float64, device=loss.device)
    for name, values in found.items():
        sums[METRICS.index(name)] = values.double().sum()
    return sums
