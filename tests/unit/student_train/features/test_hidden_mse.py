from __future__ import annotations

import torch

from student_train.features.hidden_mse import FEATURE, hidden_loss
from student_train.features.matched import MatchedStates


def test_each_pair_has_its_own_projection() -> None:
    narrow, wide = torch.tensor([[1.0]]), torch.tensor([[2.0, 4.0]])
    fits, misses = torch.tensor([[2.0, 4.0]]), torch.tensor([[0.0, 0.0]])
    layers = [MatchedStates(narrow, wide, fits), MatchedStates(narrow, wide, misses), MatchedStates(wide, wide)]
    assert hidden_loss(layers).tolist() == [10.0]
    assert (FEATURE.places[0], FEATURE.layers, FEATURE.projects) == ("all", "uniform", True)
