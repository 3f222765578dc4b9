from __future__ import annotations

import torch

from student_train.features.matched import MatchedStates
from student_train.features.patient import FEATURE, patient_loss


def test_layers_are_summed_and_length_does_not_count() -> None:
    right, up = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert patient_loss([MatchedStates(right, 3 * right), MatchedStates(right, up)]).tolist() == [2.0]
    assert (FEATURE.places[0], FEATURE.layers, FEATURE.projects) == ("first", "skip", False)
