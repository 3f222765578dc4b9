from __future__ import annotations

import torch

from student_train import distance_relation
from student_train.features.distance_relation import FEATURE, distance_loss
from student_train.features.matched import MatchedStates


def test_layers_are_summed_and_groups_kept_apart() -> None:
    drawn = torch.Generator().manual_seed(1)
    first, second = ((torch.randn(6, 3, generator=drawn), torch.randn(6, 4, generator=drawn)) for _ in range(2))
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    found = distance_loss([MatchedStates(*first, groups=groups), MatchedStates(*second, groups=groups)])
    torch.testing.assert_close(found, distance_relation(*first, groups) + distance_relation(*second, groups))
    assert FEATURE.relates and not FEATURE.projects and "all" not in FEATURE.places
