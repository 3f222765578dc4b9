from __future__ import annotations

import subprocess
import sys

import pytest

from configs.errors import ConfigError
from configs.task_objectives import TASK_OBJECTIVES, find_task_objective, task_objectives_where


@pytest.mark.parametrize("name", TASK_OBJECTIVES)
def test_every_name_of_the_registry_leads_to_its_value(name: str) -> None:
    assert find_task_objective(name).name == name


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"objective=kd is unknown: choose one of hard_labels, soft_labels, logit_mse"
    ):
        find_task_objective("kd")


def test_a_choice_of_objectives_reads_as_one() -> None:
    assert task_objectives_where(lambda each: not each.settings) == "logit_mse or features"
    assert task_objectives_where(lambda each: True) == (
        "hard_labels or soft_labels or logit_mse or masked_lm or features"
    )


def test_values_are_light() -> None:
    code = (
        "import sys; from configs.task_objectives import *; "
        "[find_task_objective(name) for name in TASK_OBJECTIVES]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
