from __future__ import annotations

import torch

from student_train.features.attention_mse import FEATURE, attention_loss
from student_train.features.matched import MatchedScores


def test_layers_are_summed_over_what_is_valid() -> None:
    student, teacher = torch.zeros(1, 1, 2, 2), torch.tensor([[[[3.0, 100.0], [100.0, 100.0]]]])
    first = MatchedScores(student, teacher, torch.tensor([[True, False]]))
    same = MatchedScores(student, student, torch.tensor([[True, True]]))
    assert attention_loss([first, same]).tolist() == [9.0]
    assert (FEATURE.places, FEATURE.layers) == ((), "uniform")
