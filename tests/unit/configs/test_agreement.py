"""Contradictions between the blocks of an experiment: each is refused with both values and the cure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from schema_builders import CANARIES, context, data, experiment, on_plain_text


def test_evaluation_seeds_need_noise() -> None:
    assert experiment(generation={"temperature": 0.7}, evaluation={"seeds": 3}).evaluation.seeds == 3
    assert experiment(evaluation={"seeds": 1}).evaluation.seeds == 1
    with pytest.raises(ValidationError, match=r"evaluation\.seeds=3 with generation\.temperature=0\.0 gives the same"):
        experiment(evaluation={"seeds": 3})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "students": {
                    "x": {"init": {"keep_layers": 1}, "stages": [{"objective": "sft", "source": "gold", "steps": 9}]}
                }
            },
            ["students.x", "source=gold", "data.response_field"],
        ),
        (
            {"generation": {"max_new_tokens": 768}},
            [
                "data.max_prompt_tokens=256",
                "generation.max_new_tokens=768",
                "teacher_engine.max_model_len=1024",
                "1025",
            ],
        ),
        (
            {"evaluation": {"max_new_tokens": 900}},
            ["evaluation.max_new_tokens=900", "teacher_engine.max_model_len=1024", "1157"],
        ),
        (
            {
                "students": {
                    "x": {
                        "init": {"keep_layers": 1},
                        "stages": [{"objective": "minillm", "rollout": {"count": 2, "ahead": True}}],
                    }
                },
                "runtime": {"training": {"weight_sync": "broadcast"}},
            },
            ["students.x.stages.0.rollout.ahead=true", "runtime.training.weight_sync=broadcast"],
        ),
    ],
)
def test_contradictions_between_blocks_name_both_keys(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment(**changes)
    for word in words:
        assert word in str(caught.value)


def test_the_longest_sequence_that_fits_is_accepted() -> None:
    assert experiment(generation={"max_new_tokens": 767}).generation.max_new_tokens == 767


def test_stages_on_plain_text_have_some_that_fits_engine_and_trainer() -> None:
    with pytest.raises(ValidationError, match=r"students\.kd\.stages\.0\.source=plain but data\.plain is not set"):
        on_plain_text()

    def windows(length: int) -> dict[str, Any]:
        plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}, "max_tokens": length}
        return {"data": data(plain=plain).model_dump()}

    assert on_plain_text(**windows(128)).data.plain is not None
    with pytest.raises(ValidationError, match=r"data\.plain\.max_tokens=9000 \+ 1 exceed .*raise it to 9001"):
        on_plain_text(**windows(9000))
    small = {"training": {"micro_batch_tokens": 64}}
    assert on_plain_text(**windows(65), runtime=small).runtime.training.micro_batch_tokens == 64
    with pytest.raises(ValidationError, match=r"data\.plain\.max_tokens=66 is more than .*micro_batch_tokens=64 holds"):
        on_plain_text(**windows(66), runtime=small)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_whoever_learns_answers_has_prompts_for_it_and_plain_text_alone_needs_none(split: str) -> None:
    plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}
    without = data(plain=plain).model_copy(update={split: None}).model_dump()
    assert split not in on_plain_text(data=without).data.splits
    with pytest.raises(
        ValidationError,
        match=rf"students\.kd\.stages\.0\.source=teacher but data\.{split} is not set: name its prompts",
    ):
        experiment(data=without)
    with pytest.raises(ValidationError, match=r"data\.test"):
        on_plain_text(data={"plain": plain})


@pytest.mark.parametrize("name", ["teacher", "untouched", "fill", "pipeline"])
def test_a_student_may_not_take_a_name_of_the_comparison(name: str) -> None:
    student = {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]}
    with pytest.raises(ValidationError, match=f"students.{name}.*choose another"):
        experiment(students={name: student})


def test_a_view_of_a_prompt_is_an_answer_that_was_asked_for() -> None:
    stage = {"objective": "kd", "epochs": 4, "views": 3}
    students = {"small": {"init": {"keep_layers": 1}, "stages": [stage]}}
    with pytest.raises(ValidationError, match=r"small.stages.0.views=3 is more than generation.samples_per_prompt=2"):
        experiment(students=students, generation={"temperature": 1.0, "samples_per_prompt": 2})
    experiment(students=students, generation={"temperature": 1.0, "samples_per_prompt": 3})


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"teacher": "live"}, "has teacher=live"),
        ({"features": [{"kind": "cosine"}]}, "has features"),
        ({"steps": None, "rollout": {"count": 2}}, "has a rollout"),
        ({"objective": "sft", "source": "plain"}, "has source=plain"),
    ],
)
def test_a_stage_that_a_context_does_not_reach_is_refused_with_the_cure(stage: dict[str, Any], words: str) -> None:
    plain = {"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}
    changes = {"data": data(plain=plain).model_dump()}
    with pytest.raises(
        ValidationError, match=rf"students\.kd\.stages\.0 {words}, where the teacher does not see teacher"
    ):
        context(stage, **changes)
    assert context(stage, **changes, teacher_context=None).teacher_context is None


def test_a_student_that_another_one_teaches_is_free_of_the_context() -> None:
    stages = [{"objective": "kd", "steps": 4}]
    students = {
        "a": {"init": {"keep_layers": 2}, "stages": stages},
        "b": {"init": {"keep_layers": 2}, "teacher": "a", "stages": [{"objective": "kd", "rollout": {"count": 2}}]},
    }
    assert context({}, students=students).students["b"].teacher == "a"


def test_what_a_context_cannot_have_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"evaluation\.exposure=true has the teacher read prompts as students see"
    ):
        context({}, evaluation={"exposure": True})
    with pytest.raises(ValidationError, match=r"teacher_context\.examples\.count=2 shows rows with their gold answers"):
        context({}, teacher_context={"examples": {"count": 2}})
    answered = context({}, teacher_context={"examples": {"count": 2}}, data=data(response_field="gold").model_dump())
    assert answered.longest_context == 1024 - 256 - 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"audit": {"canaries": {"where": ["answer"]}}}, "where names answer, and no stage has source: gold"),
        (
            {"teacher_context": {"system_prompt": "be brief"}},
            "planted rows, and teacher_context shows rows beside others",
        ),
        (
            {
                "teachers": {"other": {"model": {"path": "other"}}},
                "combine": {"kind": "route", "field": "of", "to": {"a": "teacher", "b": "other"}},
            },
            "planted rows, and combine.kind=route wants a field that planted rows lack",
        ),
    ],
)
def test_canaries_that_nobody_could_learn_or_everybody_is_shown_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        experiment(**(CANARIES | changes))


def test_plain_text_alone_has_no_place_for_canaries() -> None:
    with pytest.raises(
        ValidationError, match=r"audit.canaries stand in prompts and answers, and all stages learn plain"
    ):
        on_plain_text(data=data(plain={"train": {"hub": "a/b"}, "dev": {"hub": "a/c"}}).model_dump(), **CANARIES)
