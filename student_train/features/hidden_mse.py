"""States by their mean squared difference, TinyBERT (Jiao et al. 2020, arXiv 1909.10351).

With `layers: top` it is XtremeDistil's representation loss (Mukherjee and Awadallah 2020, arXiv 2004.05686).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedStates


def hidden_loss(layers: Sequence[MatchedStates]) -> Float[Tensor, " U"]:
    """The mean over the teacher's width, summed over the layers, the embeddings among them."""
    import torch

    from student_train.losses.hidden import hidden_mse

    return torch.stack([hidden_mse(each.student, each.teacher, each.projection) for each in layers]).sum(dim=0)


FEATURE = Feature(
    name="hidden_mse",
    learns="its states",
    places=("all", "first", "last", "mean"),
    layers="uniform",
    projects=True,
    loss=hidden_loss,
)
