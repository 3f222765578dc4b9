"""Normalised states of several layers at one position, Patient KD (Sun et al. 2019, arXiv 1908.09355)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.task_features import Feature

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.features.matched import MatchedStates


def patient_loss(layers: Sequence[MatchedStates]) -> Float[Tensor, " U"]:
    """Sum over the layers of the squared distance of normalised states."""
    import torch

    from student_train.losses.hidden import patient

    student = torch.stack([each.student for each in layers], dim=1)
    return patient(student, torch.stack([each.teacher for each in layers], dim=1))


FEATURE = Feature(
    name="patient",
    learns="normalised states of its layers at one position",
    places=("first", "last", "mean"),
    layers="skip",
    projects=False,
    loss=patient_loss,
)
