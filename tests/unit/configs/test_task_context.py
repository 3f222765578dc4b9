"""A context that a task's teacher cannot be shown, or from which nothing can be learned, is refused at load."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.task_context import context_in_words
from configs.task_experiment import TaskDistillConfig
from configs.teacher_context import TeacherContext

NEIGHBOURS = {"neighbours": {"before": 2}}
STAGE: dict[str, Any] = {"objective": "soft_labels", "epochs": 1.0}


def experiment(context: dict[str, Any] | None, *, stage: dict[str, Any] = STAGE, **values: Any) -> TaskDistillConfig:
    model = {"path": "some/model"}
    plain = {
        "name": "t",
        "task": "t.yaml",
        "teacher": {"model": model, **values.pop("teacher", {})},
        "students": {"s": {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [stage]}},
        "teacher_context": context,
    }
    return TaskDistillConfig.model_validate(plain | values)


@pytest.mark.parametrize(
    ("context", "values", "reason"),
    [
        ({"system_prompt": "Be brief."}, {}, "teacher_context.system_prompt tells a language model what to do, and"),
        (
            {"examples": {"count": 2}},
            {},
            "teacher_context.examples tells .* teacher.answers=head .* set answers: labels",
        ),
        (
            NEIGHBOURS,
            {"teacher": {"answers": "labels", "calibrated": True}},
            "teacher_context.neighbours stands beside every row, and teacher.calibrated=true .* set calibrated: false",
        ),
        (
            {"passage_field": "more"},
            {"teacher": {"answers": "labels", "calibrated": True}},
            "teacher_context.passage_field stands beside every row",
        ),
        (
            {"examples": {"count": 2}},
            {"teacher": {"answers": "labels"}, "data": {"gold": {"per_class": 2}}},
            "teacher_context.examples shows gold labels of train rows, and data.gold leaves some of them out",
        ),
        (
            NEIGHBOURS,
            {
                "teachers": {"other": {"model": {"path": "other"}}},
                "combine": {"kind": "route", "field": "from", "to": {"a": "teacher", "b": "other"}},
            },
            "combine.kind=route gives each row a teacher of its own, and teacher_context is shown to all of them",
        ),
        (
            NEIGHBOURS,
            {"stage": {**STAGE, "teacher": "live"}},
            "students.s.stages.0 has teacher=live, for which the teacher reads the student's own rows",
        ),
        (
            NEIGHBOURS,
            {"stage": {**STAGE, "features": [{"kind": "hidden_mse"}]}},
            "students.s.stages.0 has features of every token, for which the teacher reads the student's own rows",
        ),
        (
            NEIGHBOURS,
            {"stage": {**STAGE, "features": [{"kind": "hidden_mse", "place": "mean"}]}},
            "stages.0.features.0 takes states at place=mean, .* set place: first",
        ),
    ],
)
def test_what_cannot_be_shown_or_learned_is_named(context: Any, values: dict[str, Any], reason: str) -> None:
    experiment(None, **values)
    with pytest.raises(ValidationError, match=reason):
        experiment(context, **values)


@pytest.mark.parametrize(
    ("context", "values"),
    [
        (NEIGHBOURS, {}),
        (NEIGHBOURS, {"stage": {**STAGE, "features": [{"kind": "patient"}]}}),
        (NEIGHBOURS, {"teachers": {"other": {"model": {"path": "o"}}}, "combine": {"kind": "mixture"}}),
        ({"system_prompt": "Be brief."}, {"teacher": {"answers": "labels", "calibrated": True}}),
        ({"examples": {"count": 2}, **NEIGHBOURS}, {"teacher": {"answers": "labels"}}),
    ],
)
def test_what_can_be_shown_changes_the_digest_and_nothing_does_not(
    context: dict[str, Any], values: dict[str, Any]
) -> None:
    bare = experiment(None, **values)
    assert "teacher_context" not in bare.model_dump()
    shown = experiment(context, **values)
    assert shown.digest() != bare.digest() and TaskDistillConfig.model_validate(shown.model_dump()) == shown
    assert shown.of_teacher("teacher").teacher_context == shown.teacher_context


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"neighbours": {"before": 2, "after": 1}}, "the rows around it (2 before and 1 after)"),
        ({"neighbours": {"after": 1, "within": "doc"}}, "the rows of the same doc around it (1 after)"),
        ({"passage_field": "page"}, "the passage in page"),
        ({"system_prompt": "Hm.", "examples": {"count": 3}}, "an instruction, 3 worked examples"),
    ],
)
def test_it_is_said_in_words_what_a_teacher_sees(context: dict[str, Any], said: str) -> None:
    found = context_in_words(TeacherContext.model_validate(context))
    assert found == f"beside each row the teacher sees {said}; students see the row alone"
    assert context_in_words(None) == ""
