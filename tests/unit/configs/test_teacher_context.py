"""A wider context that shows nothing is refused; the parts of one stand for themselves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.teacher_context import Neighbours, TeacherContext


@pytest.mark.parametrize("given", [{}, {"system_prompt": None, "examples": None}])
def test_a_context_of_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"nothing more: name system_prompt, examples, passage_field"):
        TeacherContext.model_validate(given)


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(ValidationError, match="before=0 and after=0 show nothing"):
        TeacherContext.model_validate({"neighbours": {"within": "document"}})


@pytest.mark.parametrize(
    "given",
    [
        {"system_prompt": "Answer in one word."},
        {"examples": {"count": 4}},
        {"passage_field": "evidence"},
        {"neighbours": {"before": 2}},
        {"neighbours": {"after": 1, "within": "document"}},
    ],
)
def test_each_part_is_enough(given: dict[str, Any]) -> None:
    (part,) = given
    assert getattr(TeacherContext.model_validate(given), part) is not None


def test_neighbours_may_stand_on_both_sides() -> None:
    both = Neighbours(before=2, after=3)
    assert (both.before, both.after, both.within) == (2, 3, None)
