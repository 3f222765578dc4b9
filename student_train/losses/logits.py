"""Losses on the logits of a decision: which class a text has, which tag a word, at which token a span begins.

Shapes: B decisions, C choices of each. Every loss gives one number a decision, in nats where it is about probabilities;
whoever calls sums them and divides once by the number of all decisions. `valid` [B, C] marks the choices that there
are, where decisions differ in their number: what is not valid enters nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional


def logit_mse(
    student: Float[Tensor, "B C"], teacher: Float[Tensor, "B C"], *, valid: Bool[Tensor, "B C"] | None = None
) -> Float[Tensor, " B"]:
    """Mean over the choices of (z_S - z_T)^2 (Tang et al. 2019, arXiv 1903.12136): no temperature, no label."""
    squares = (student - teacher) ** 2
    if valid is None:
        return squares.mean(dim=1)
    return torch.where(valid, squares, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def soft_cross_entropy(
    student: Float[Tensor, "B C"],
    teacher: Float[Tensor, "B C"],
    *,
    temperature: float,
    valid: Bool[Tensor, "B C"] | None = None,
) -> Float[Tensor, " B"]:
    """T^2 x KL(softmax(z_T / T) ‖ softmax(z_S / T)), in nats (Hinton et al. 2015, arXiv 1503.02531).

    Without the teacher's own entropy, which no student changes: equal logits give zero.
    """
    believed = _log_softmax(teacher / temperature, valid)
    answered = _log_softmax(student / temperature, valid)
    # A choice that the teacher rules out (-inf) has probability 0, and 0 x (-inf) is not a number.
    terms = torch.where(torch.isneginf(believed), 0.0, believed.exp() * (believed - answered))
    if valid is not None:
        terms = torch.where(valid, terms, 0.0)
    return temperature**2 * terms.sum(dim=1)


def label_cross_entropy(
    student: Float[Tensor, "B C"], labels: Int64[Tensor, " B"], *, valid: Bool[Tensor, "B C"] | None = None
) -> Float[Tensor, " B"]:
    """-log softmax(z_S)[label], in nats; 0 where the label is not known (-1)."""
    known = labels >= 0
    chosen = _log_softmax(student, valid).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.where(known, -chosen, 0.0)


def _log_softmax(logits: Float[Tensor, "B C"], valid: Bool[Tensor, "B C"] | None) -> Float[Tensor, "B C"]:
    if valid is None:
        return functional.log_softmax(logits, dim=1)
    # The lowest number instead of -inf: a decision without any choice (a padded one) has a gradient of 0, not NaN.
    return functional.log_softmax(logits.masked_fill(~valid, torch.finfo(logits.dtype).min), dim=1)
