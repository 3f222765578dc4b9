"""Losses on what is inside a model: hidden states and attention scores, matched layer by layer.

Shapes: B examples, N tokens, M matched layers, H and h widths of teacher and student, A heads, L tokens of a row. Each
loss gives one number an example or a token; whoever calls sums them and divides once by the number of all of them. What
is not valid enters nothing, be it infinite.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def patient(student: Float[Tensor, "B M H"], teacher: Float[Tensor, "B M H"]) -> Float[Tensor, " B"]:
    """Sum over the layers of ‖h_S/‖h_S‖ - h_T/‖h_T‖‖^2 at one position (Sun et al. 2019, arXiv 1908.09355, eq. 7)."""
    apart = functional.normalize(student, dim=2) - functional.normalize(teacher, dim=2)
    return (apart**2).sum(dim=(1, 2))


def cosine(student: Float[Tensor, "N H"], teacher: Float[Tensor, "N H"]) -> Float[Tensor, " N"]:
    """1 - cos(h_S, h_T) at every token, of the last hidden state (Sanh et al. 2019, arXiv 1910.01108)."""
    return 1.0 - functional.cosine_similarity(student, teacher, dim=1)


def hidden_mse(
    student: Float[Tensor, "N h"], teacher: Float[Tensor, "N H"], projection: Float[Tensor, "h H"] | None = None
) -> Float[Tensor, " N"]:
    """Mean over the teacher's width of (h_S W - h_T)^2 (Jiao et al. 2020, arXiv 1909.10351, eq. 8).

    Without `projection` W both are of one width. XtremeDistil's representation loss (Mukherjee and Awadallah 2020,
    arXiv 2004.05686) is the same with the dropped-out state of the student.
    """
    mapped = student if projection is None else student @ projection
    return ((mapped - teacher) ** 2).mean(dim=1)


def attention_mse(
    student: Float[Tensor, "B A L L"], teacher: Float[Tensor, "B A L L"], mask: Bool[Tensor, "B L"]
) -> Float[Tensor, " B"]:
    """Mean over heads and valid (query, key) pairs of (a_S - a_T)^2, of scores before the softmax (Jiao et al., eq. 7).

    A row without valid tokens gives 0.
    """
    pairs = (mask[:, None, :, None] & mask[:, None, None, :]).expand_as(student)
    # Chosen before it is subtracted: the gradient of what is left out would be NaN where it is infinite.
    apart = torch.where(pairs, student, 0.0) - torch.where(pairs, teacher, 0.0)
    return (apart**2).sum(dim=(1, 2, 3)) / pairs.sum(dim=(1, 2, 3)).clamp(min=1)
