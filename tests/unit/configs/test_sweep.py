"""A sweep block that cannot be searched is refused with the cure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.sweep import Range, SweepConfig

RATE = "students.kd.stages.0.learning_rate"


def sweep(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate({"space": {RATE: [1e-4, 3e-4]}} | changes)


def test_a_range_of_whole_numbers_is_whole() -> None:
    assert Range(low=1, high=9, step=2).whole
    assert not Range(low=1, high=9, step=0.5).whole
    assert not Range(low=1.0, high=9).whole


@pytest.mark.parametrize(
    ("low", "high", "step", "values"),
    [(16, 24, 4, (16, 20, 24)), (16, 23, 4, (16, 20)), (0.1, 0.3, 0.1, (0.1, 0.2, 0.3))],
)
def test_a_range_with_a_step_ends_where_it_says(low: float, high: float, step: float, values: Any) -> None:
    assert Range(low=low, high=high, step=step).values() == pytest.approx(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {}}, "at least 1"),
        ({"space": {RATE: []}}, "at least 1"),
        ({"space": {RATE: [1e-4, 1e-4]}}, "names a value twice"),
        ({"space": {"data.train.limit": [1, 2]}}, "only keys below students, and teacher.top_k"),
        ({"space": {RATE: {"low": 1e-5, "high": 1e-3}}}, "has no step"),
        ({"space": {RATE: {"low": 1e-3, "high": 1e-5, "step": 1e-4}}}, "is not below high"),
        ({"search": "tpe", "space": {RATE: {"low": 0.0, "high": 1.0, "log": True}}, "trials": 3}, "needs low above 0"),
        ({"search": "random"}, "does not end by itself: set trials"),
    ],
)
def test_what_cannot_be_searched_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        sweep(**changes)
