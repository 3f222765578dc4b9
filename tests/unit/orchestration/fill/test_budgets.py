"""The limits of an experiment, held against what all its starts have spent."""

from __future__ import annotations

import pytest

from configs import BudgetReached
from configs.budgets import BudgetConfig
from configs.schema import EngineSettings
from orchestration.fill.budgets import budgets_left, require_budget, require_energy
from orchestration.fill.ledger import Counts


def test_limits_are_those_of_the_experiment() -> None:
    limits = BudgetConfig(max_teacher_tokens=1000, max_gpu_hours=2.0)
    spent = Counts(fill=300, rollout=150, evaluation=50, gpu_seconds=3600.0)
    engines = EngineSettings(count=2, tensor_parallel=2, pipeline_parallel=2)
    left = budgets_left(limits, spent=spent, engines=engines)
    # One GPU hour is left, which 8 GPUs take in 450 s.
    assert (left.teacher_tokens, left.seconds) == (500, 450.0)
    assert budgets_left(BudgetConfig(), spent=spent, engines=engines).spent is False


def test_what_may_take_more_than_is_left_does_not_begin() -> None:
    spent = Counts(fill=900, gpu_seconds=7200.0)
    require_budget(BudgetConfig(max_teacher_tokens=1000), spent=spent, tokens=100, purpose="rollout 3")
    with pytest.raises(BudgetReached, match=r"rollout 3 may take 101 .*900 of budgets\.max_teacher_tokens=1,000"):
        require_budget(BudgetConfig(max_teacher_tokens=1000), spent=spent, tokens=101, purpose="rollout 3")
    with pytest.raises(BudgetReached, match=r"2\.00 GPU hours are spent of budgets\.max_gpu_hours=2 and rollout 3"):
        require_budget(BudgetConfig(max_gpu_hours=2.0), spent=spent, tokens=1, purpose="rollout 3")


def test_energy_ends_what_is_under_way() -> None:
    limits = BudgetConfig(max_kwh=0.5)
    require_energy(limits, spent=Counts(joules=1.79e6), purpose="train kd")
    require_energy(BudgetConfig(), spent=Counts(joules=1e12), purpose="train kd")
    with pytest.raises(BudgetReached, match=r"0\.5 kWh are spent of budgets\.max_kwh=0\.5 and train kd is not done"):
        require_energy(limits, spent=Counts(joules=1.8e6), purpose="train kd")


def test_without_engines_of_its_own_a_fill_takes_tokens_and_no_hours() -> None:
    limits = BudgetConfig(max_teacher_tokens=1000, max_gpu_hours=2.0)
    left = budgets_left(limits, spent=Counts(fill=300, gpu_seconds=7200.0), engines=None)
    assert (left.teacher_tokens, left.seconds) == (700, None)
