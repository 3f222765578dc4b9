from __future__ import annotations

import torch

from student_train.features.cosine import FEATURE, cosine_loss
from student_train.features.matched import MatchedStates


def test_a_right_angle_costs_one_and_the_same_direction_nothing() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 5.0], [1.0, 0.0]])
    assert cosine_loss([MatchedStates(student, teacher)]).tolist() == [1.0, 0.0]
    assert (FEATURE.places[0], FEATURE.layers, FEATURE.projects) == ("all", "top", False)
