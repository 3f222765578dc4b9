"""Relations by distances of states, RKD (Park et al. 2019, arXiv 1904.05068, eq. 5 to 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedStates


def distance_loss(layers: Sequence[MatchedStates]) -> Float[Tensor, " U"]:
    """The mean over the texts of a group, summed over the layers."""
    import torch

    from student_train.losses.relations import distance_relation

    return torch.stack([distance_relation(each.student, each.teacher, each.groups) for each in layers]).sum(dim=0)


FEATURE = Feature(
    name="distance_relation",
    learns="how far states of texts lie from each other",
    places=("first", "last", "mean"),
    layers="top",
    projects=False,
    relates=True,
    loss=distance_loss,
)
