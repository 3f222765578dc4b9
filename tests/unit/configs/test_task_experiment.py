from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from configs.task_experiment import TaskDistillConfig

LARGE = {"model": {"hub": "some/large-encoder"}}

PREPARE = {"objective": "hard_labels", "epochs": 3.0}

CONFIG: dict[str, Any] = {
    "name": "intents",
    "task": "tasks/intents.yaml",
    "teacher": {"model": {"hub": "some/encoder"}, "prepare": [PREPARE]},
    "data": {
        "transfer": [{"path": "transfer.jsonl"}],
        "augment": {"rules": {"kind": "rules"}, "written": {"kind": "continuation", "model": {"hub": "some/lm"}}},
    },
    "students": {
        "lstm": {
            "start": {"kind": "recurrent"},
            "stages": [{"objective": "logit_mse", "data": ["train", "transfer", "rules"], "epochs": 4.0}],
        }
    },
}


def config(**changes: Any) -> TaskDistillConfig:
    """The experiment with other values at dotted keys."""
    values = deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split("__")
        place: Any = values
        for part in path:
            place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
        place[last] = value
    return TaskDistillConfig.model_validate(values)


def test_an_experiment_that_makes_sense() -> None:
    assert config().students["lstm"].stages[0].needs == "logits"
    assert config(data__gold={"per_class": 10}, data__transfer=()).data.has_transfer


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"students__teacher": CONFIG["students"]["lstm"]}, "has a name that the comparison uses"),
        ({"students__majority": CONFIG["students"]["lstm"]}, "has a name that the comparison uses"),
        ({"students__lstm__stages__0__data": ["rumours"]}, "there are train, transfer, rules, written"),
        ({"data__transfer": ()}, "data names transfer, and data.transfer is empty"),
        ({"data__augment": {"train": {"kind": "rules"}}, "students": {}}, "augment.train has a name"),
        ({"data__augment__rules__mask": 0.95}, "sum to more than 1"),
        ({"teacher__calibrated": True}, "is about the likelihood of labels, not answers=head"),
        ({"teacher__constrained": False}, "is about text that is written, not answers=head"),
        ({"teacher__prepare": [PREPARE | {"labels": "teacher"}]}, "a teacher is prepared on gold labels alone"),
        ({"teacher__answers": "labels"}, "prepare tunes a model with a task head"),
        (
            {"teacher__answers": "text", "teacher__prepare": []},
            "logit_mse needs the teacher's logits and teacher.answers=text gives its word alone",
        ),
        ({"runtime__tracking_uri": "postgresql://me:secret@db/x"}, "holds a URI with a password"),
        ({"data__augment": {}, "evaluation__augmented_baseline": True}, "needs data.augment"),
        (
            {
                "teacher": {"model": {"path": "m"}, "answers": "labels"},
                "evaluation": {"cka": True},
            },
            "evaluation.cka=true looks into the layers of the teacher, and teacher.answers=labels has it",
        ),
        (
            {"data__augment__rules__of": ["transfer"], "evaluation__augmented_baseline": True},
            "needs data.augment with a set of train alone",
        ),
        (
            {
                "data__agreement": {"min_probability": 0.5},
                "students__lstm__stages": [{"objective": "hard_labels", "epochs": 1.0}],
            },
            "data.agreement.min_probability=0.5 leaves out examples by what the teacher believes",
        ),
        ({"teachers": {"lstm": LARGE}}, "teachers.lstm has a name that another row"),
        ({"teachers": {"large": LARGE | {"answers": "text"}}}, "teachers.large.answers=text, and several teachers are"),
        (
            {"teachers": {"large": LARGE}, "students__lstm__stages__0__objective": "hard_labels"}
            | {"students__lstm__stages__0__data": ["train"]},
            "teachers names large, and no stage learns what a teacher answers",
        ),
        (
            {
                "teachers": {"large": LARGE},
                "combine": {"kind": "route", "field": "x", "to": {"a": "large", "b": "teacher"}},
            }
            | {"students__lstm__stages__0__features": [{"kind": "patient"}]},
            "combine.kind=route gives each row a teacher of its own, and features learn",
        ),
        ({"students__lstm-gold": CONFIG["students"]["lstm"]}, "the name that lstm has in the comparison when"),
    ],
)
def test_contradictions_are_named_with_both_sides(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(**changes)


@pytest.mark.parametrize(
    ("data", "bare"), [(["train", "transfer"], "transfer"), (["written"], "written"), (["train", "rules"], None)]
)
def test_gold_is_learned_only_where_there_is_any(data: list[str], bare: str | None) -> None:
    stage = {"objective": "hard_labels", "data": data, "epochs": 1.0}
    if bare is None:
        config(students__lstm__stages=[stage])
        with pytest.raises(ValidationError, match="rules, whose examples have no gold label"):
            config(students__lstm__stages=[stage], data__augment__rules__of=["train", "transfer"])
        return
    with pytest.raises(ValidationError, match=f"{bare}, whose examples have no gold label"):
        config(students__lstm__stages=[stage])
    config(students__lstm__stages=[stage | {"labels": "teacher"}])


def test_the_digest_is_of_what_changes_numbers_alone() -> None:
    digest = config().digest()
    assert config(runtime__nodes=2, budgets__max_teacher_tokens=5).digest() == digest
    assert config(teacher__max_tokens=64).digest() != digest


def test_screening_changes_the_digest_and_is_written_only_where_it_is_asked_for() -> None:
    plain, screened = config(), config(privacy={"prompts": "redact"}, content={"offensive": 0.9})
    assert not {"privacy", "content"} & set(plain.model_dump(mode="json"))
    assert screened.digest() != plain.digest()
    assert TaskDistillConfig.model_validate(screened.model_dump(mode="json")) == screened


def test_a_look_into_layers_is_written_where_it_is_asked_for() -> None:
    said = config().model_dump(mode="json")["evaluation"]
    assert "cka" not in said and config(evaluation={**said, "cka": False}).digest() == config().digest()
    assert config(evaluation={**said, "cka": True}).digest() != config().digest()


def test_several_teachers_change_the_digest_and_one_is_written_as_before() -> None:
    alone, two = config(), config(teachers={"large": LARGE})
    assert {"teachers", "combine"}.isdisjoint(alone.model_dump(mode="json"))
    weighed = config(teachers={"large": LARGE}, combine={"kind": "mixture", "weights": {"teacher": 3, "large": 1}})
    assert len({alone.digest(), two.digest(), weighed.digest()}) == 3
    assert (two.shares, weighed.shares) == ({"teacher": 0.5, "large": 0.5}, {"teacher": 0.75, "large": 0.25})
    large = weighed.of_teacher("large")
    assert (large.teacher, large.teachers, large.combine) == (two.teachers["large"], {}, None)
    assert weighed.of_teacher("teacher").digest() == alone.digest()


RULES: dict[str, Any] = {"objective": "logit_mse", "data": ["train", "rules"], "epochs": 2.5}


@pytest.mark.parametrize(
    ("stage", "changes", "reason"),
    [
        ({"views": 9}, {}, "stages.0.views=9 is more than data.augment.rules.copies=4: raise it"),
        ({"teacher": "live", "data": ["written"]}, {}, "augment.written has kind=continuation, which is made once"),
        (
            {"teacher": "live"},
            {"teacher__answers": "labels", "teacher__prepare": []},
            "teacher=live reads beside the student, and teacher.answers=labels has it answer in an engine",
        ),
        (
            {"teacher": "live"},
            {"students__lstm__max_tokens": 400},
            "students.lstm.max_tokens=400 is more than teacher.max_tokens=128, and teacher=live of students.lstm.stages.0",
        ),
    ],
)
def test_views_and_live_teachers_need_what_there_is(
    stage: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    four = {"data__augment__rules__copies": 4}
    with pytest.raises(ValidationError, match=reason):
        config(students__lstm__stages=[RULES | stage], **four, **changes)


def test_with_turns_a_text_is_read_that_may_stand_for_its_own_copies() -> None:
    stages = [RULES | {"data": ["rules"]}, RULES | {"data": ["rules"], "views": 3}, RULES | {"teacher": "live"}]
    made = config(students__lstm__stages=stages)
    assert [made.read_sets(stage) for stage in made.students["lstm"].stages] == [
        ("rules",), ("rules", "train"), ("train", "rules"),
    ]  # fmt: skip
    assert made.drawn_anew() == {"rules": 3}


DOOR = "https://teacher.example:8100"


def test_where_a_teacher_answers_changes_no_number_and_is_written_only_if_it_is_said() -> None:
    plain, served = config(teacher={"model": {"hub": "some/encoder"}}), config(teacher__serve=DOOR, teacher__prepare=[])
    assert served.teacher.serve is not None and served.teacher.serve.host == "teacher.example:8100"
    assert served.digest() == plain.digest()
    assert "serve" not in plain.model_dump(mode="json")["teacher"]
    assert TaskDistillConfig.model_validate(served.model_dump(mode="json")) == served
    second = {"second": {**LARGE, "serve": DOOR}}
    assert config(teachers=second).digest() == config(teachers={"second": LARGE}).digest()


def test_a_served_teacher_that_would_not_be_the_one_that_is_asked_is_refused() -> None:
    said = r"prepare tunes the teacher here, and serve=https://teacher\.example:8100 asks one that is tuned there"
    with pytest.raises(ValidationError, match=said):
        config(teacher__serve=DOOR)
