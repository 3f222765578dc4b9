"""Attention scores before the softmax, TinyBERT (Jiao et al. 2020, arXiv 1909.10351)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedScores


def attention_loss(layers: Sequence[MatchedScores]) -> Float[Tensor, " B"]:
    """The mean over heads and pairs of tokens, summed over the layers."""
    import torch

    from student_train.losses.hidden import attention_mse

    return torch.stack([attention_mse(each.student, each.teacher, each.mask) for each in layers]).sum(dim=0)


FEATURE = Feature(
    name="attention_mse",
    learns="its attention scores",
    places=(),
    layers="uniform",
    projects=False,
    loss=attention_loss,
)
