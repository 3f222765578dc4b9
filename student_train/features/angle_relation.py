"""Relations by angles of states, RKD (Park et al. 2019, arXiv 1904.05068, eq. 8 to 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedStates


def angle_loss(layers: Sequence[MatchedStates]) -> Float[Tensor, " U"]:
    """The mean over the texts of a group, summed over the layers."""
    import torch

    from student_train.losses.relations import angle_relation

    return torch.stack([angle_relation(each.student, each.teacher, each.groups) for each in layers]).sum(dim=0)


FEATURE = Feature(
    name="angle_relation",
    learns="the angles that states of texts make with each other",
    places=("first", "last", "mean"),
    layers="top",
    projects=False,
    relates=True,
    loss=angle_loss,
)
