from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.task_stages import TaskStageConfig, TaskStudentConfig


def stage(**fields: Any) -> TaskStageConfig:
    return TaskStageConfig.model_validate({"objective": "hard_labels", "epochs": 2.0} | fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"steps": 3}, "exactly one of steps and epochs"),
        ({"epochs": None}, "exactly one of steps and epochs"),
        ({"epochs": None, "steps": 3, "warmup_steps": 3}, "must be less than the 3 steps"),
        ({"data": ("train", "train")}, "names a set twice"),
        ({"select": "test_accuracy"}, "chosen on the test split"),
        ({"select": "last", "patience": 2}, "patience=2 needs a measure"),
        ({"select": "last", "keep_start": True}, "keep_start=True needs a measure"),
        ({"temperature": 2.0}, "temperature=2.0 only acts on objective=soft_labels or masked_lm, not hard_labels"),
        ({"objective": "logit_mse", "labels": "teacher"}, "only acts on objective=hard_labels"),
        ({"objective": "logit_mse", "gold_weight": 0.5}, "only acts on objective=soft_labels"),
        ({"unfrozen": 1, "lora": {}}, "unfrozen=1 freezes some"),
        ({"objective": "kd"}, "hard_labels"),
        ({"objective": "features", "select": "last"}, "learns its features and names none"),
        ({"objective": "features", "features": ({"kind": "cosine"},)}, "chooses by answers"),
        ({"batch_size": 6, "features": ({"kind": "distance_relation"},)}, "relate groups of 8 texts and batch_size=6"),
        (
            {"features": ({"kind": "distance_relation", "group": 4}, {"kind": "angle_relation", "group": 5})},
            r"several sizes \(distance_relation of 4, angle_relation of 5\)",
        ),
        ({"features": ({"kind": "cosine", "group": 4},)}, "group=4 is about relations of texts, not kind=cosine"),
        ({"features": ({"kind": "angle_relation", "group": 2},)}, "greater than or equal to 3"),
    ],
)
def test_stages_that_contradict_themselves(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        stage(**fields)


def test_a_stage_says_what_must_be_known_of_its_examples() -> None:
    assert stage().needs == "gold"
    assert stage(labels="teacher", data=("train", "transfer")).needs == "label"
    assert stage(objective="soft_labels", gold_weight=0.5).needs == "logits"


def test_features_come_from_a_teacher_whatever_else_is_learned() -> None:
    patient = stage(features=({"kind": "patient"},))
    assert patient.needs == "gold" and patient.is_taught and not patient.needs_answers and not stage().is_taught
    assert "features" not in stage().model_dump(mode="json"), "addressed as before there were features"
    assert patient.identity()["features"][0]["kind"] == "patient"
    assert "group" not in patient.identity()["features"][0], "addressed as before there were relations"
    relation = stage(features=({"kind": "angle_relation", "group": 5},))
    assert relation.related == 5 and relation.identity()["features"][0]["group"] == 5 and patient.related == 1


def test_whatever_a_stage_says_changes_its_student() -> None:
    for fields in ({"seed": 1}, {"unfrozen": 0}, {"batch_size": 8}, {"data": ("train", "rules")}, {"patience": 3}):
        assert stage(**fields).identity() != stage().identity(), fields


def test_a_student_has_stages() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        TaskStudentConfig.model_validate({"start": {"kind": "bag"}, "stages": []})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"views": 2}, r"views=2 reads one copy of each text an epoch and data=\['train'\] names no set"),
        ({"views": 2, "data": ("train", "transfer"), "labels": "teacher"}, "names no set of data.augment"),
        (
            {"objective": "logit_mse", "views": 2, "data": ("rules",), "teacher": "live"},
            "views=2 with teacher=live, for whom texts are changed anew",
        ),
        ({"teacher": "live"}, "teacher=live answers beside the student and objective=hard_labels needs no answer"),
        (
            {"objective": "logit_mse", "teacher": "live", "features": ({"kind": "patient"},)},
            "features has kind=patient with place=first, which is read from the cache",
        ),
        (
            {"objective": "logit_mse", "teacher": "live", "data": ("rules",), "epochs": None, "steps": 9},
            "steps=9 does not say how many there are: set epochs",
        ),
    ],
)
def test_views_and_live_teachers_that_make_no_sense(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        stage(**fields)


def test_a_live_teacher_is_not_asked_before() -> None:
    live, cached = (stage(objective="logit_mse", data=("train", "rules"), teacher=who) for who in ("live", "cache"))
    assert (live.needs_answers, live.reads_live, live.reads_teacher, live.is_taught) == (False, True, True, True)
    assert (cached.needs_answers, cached.reads_live, cached.reads_teacher) == (True, False, False)
    assert stage(objective="logit_mse", data=("train",), teacher="live", epochs=None, steps=3).turns is None


def test_turns_are_views_or_the_epochs_of_a_live_teacher() -> None:
    soft = {"objective": "soft_labels", "data": ("rules",)}
    assert stage(**soft).turns is None
    assert stage(**soft, views=4).turns == 4
    assert stage(**soft, teacher="live", epochs=2.5).turns == 3


def test_stages_from_before_are_written_as_they_were() -> None:
    plain = stage().identity()
    assert not {"features", "views", "teacher"} & set(plain)
    views = stage(data=("rules",), views=2)
    assert views.identity() == plain | {"data": ["rules"], "views": 2}
    assert TaskStageConfig.model_validate_json(views.model_dump_json()) == views
