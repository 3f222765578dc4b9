from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.task_teacher import TaskTeacherConfig

GOLD = {"objective": "hard_labels", "epochs": 1.0}


def teacher(**values: Any) -> TaskTeacherConfig:
    return TaskTeacherConfig.model_validate({"model": {"hub": "some/encoder"}, **values})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"calibrated": True}, "calibrated=true is about the likelihood of labels, not answers=head"),
        ({"constrained": False, "answers": "labels"}, "constrained=false is about text that is written"),
        ({"prepare": [{**GOLD, "objective": "logit_mse"}]}, "prepare.0 has objective=logit_mse on data="),
        ({"prepare": [GOLD], "answers": "text"}, "prepare tunes a model with a task head, and answers=text has none"),
        (
            {"general": [{"objective": "masked_lm", "data": ["plain"], "epochs": 1.0}]},
            "general leaves the teacher without",
        ),
    ],
)
def test_a_teacher_that_contradicts_itself_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        teacher(**values)


def test_later_keys_are_written_only_where_they_say_something() -> None:
    assert not {"general", "serve"} & set(teacher().model_dump(mode="json"))
    assert teacher().elsewhere is None
