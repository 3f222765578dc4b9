from __future__ import annotations

import pytest
import torch

from student_train.features.matched import MatchedStates


def test_states_of_other_texts_are_no_pair() -> None:
    MatchedStates(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(TypeError):
        MatchedStates(torch.zeros(2, 3), torch.zeros(3, 4))
