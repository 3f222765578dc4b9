"""The random state as text: it comes back bit for bit, through JSON."""

from __future__ import annotations

import json

import torch

from student_train.training.random_state import random_state, set_random_state


def test_numbers_go_on_where_the_state_was_taken() -> None:
    torch.manual_seed(5)
    torch.rand(3)
    kept = json.loads(json.dumps(random_state()))
    expected = torch.rand(4)
    torch.manual_seed(6)
    set_random_state(kept)
    assert torch.equal(torch.rand(4), expected)


def test_a_state_with_another_number_of_gpus_sets_the_cpu_alone() -> None:
    torch.manual_seed(5)
    kept = random_state() | {"gpu": ["AA=="] * 99}
    expected = torch.rand(4)
    set_random_state(kept)
    assert torch.equal(torch.rand(4), expected)
