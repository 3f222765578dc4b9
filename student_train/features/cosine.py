"""The direction of states, DistilBERT (Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedStates


def cosine_loss(layers: Sequence[MatchedStates]) -> Float[Tensor, " U"]:
    """1 - cos, summed over the layers (of the last one alone, unless others are named)."""
    import torch

    from student_train.losses.hidden import cosine

    return torch.stack([cosine(each.student, each.teacher) for each in layers]).sum(dim=0)


FEATURE = Feature(
    name="cosine",
    learns="the direction of its last states",
    places=("all", "first", "last", "mean"),
    layers="top",
    projects=False,
    loss=cosine_loss,
)
