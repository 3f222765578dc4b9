"""General stages: which make sense, which are refused, and that experiments without any are what they were."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from configs.task_experiment import TaskDistillConfig

MASKED = {"objective": "masked_lm", "data": ["plain"], "steps": 9}
FEATURES = {"objective": "features", "data": ["plain"], "steps": 9, "select": "last", "features": [{"kind": "cosine"}]}
CONFIG: dict[str, Any] = {
    "name": "intents",
    "task": "tasks/intents.yaml",
    "teacher": {"model": {"hub": "some/encoder"}, "prepare": [{"objective": "hard_labels", "epochs": 3.0}]},
    "data": {"plain": {"train": {"path": "plain.jsonl"}, "dev": {"path": "dev.jsonl"}}},
    "students": {
        "half": {
            "start": {"kind": "transformer", "keep_layers": 6, "layers_by": "alternate"},
            "general": [FEATURES, MASKED | {"lm_weight": 2.0, "soft_weight": 5.0, "temperature": 2.0}],
            "stages": [{"objective": "hard_labels", "epochs": 4.0}],
        }
    },
}


def config(**changes: Any) -> TaskDistillConfig:
    """The experiment with other values at dotted keys; None takes a key out."""
    values = deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split("__")
        place: Any = values
        for part in path:
            place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    return TaskDistillConfig.model_validate(values)


def test_general_stages_that_make_sense() -> None:
    assert [stage.needs for stage in config().students["half"].general] == ["nothing", "words"]
    assert config(teacher__general=[MASKED | {"unfrozen": 0}]).teacher.general[0].unfrozen == 0
    config(students__half__general__0__data=["plain", "train"])


def test_an_experiment_without_general_stages_is_written_and_addressed_as_before() -> None:
    bare = config(students__half__general=None, data__plain=None)
    said = bare.model_dump(mode="json")
    assert "plain" not in said["data"] and "general" not in said["teacher"] | said["students"]["half"]
    assert not {"lm_weight", "soft_weight"} & set(said["students"]["half"]["stages"][0])
    assert config().digest() != bare.digest()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"students__half__stages": [MASKED]},
            "students.half.stages.0.objective=masked_lm learns plain text and no task: move the stage to general, or "
            "choose hard_labels or soft_labels or logit_mse or features",
        ),
        ({"students__half__stages__0__data": ["plain"]}, "stages.0.data names plain, which is no text of the task"),
        ({"teacher__prepare": [MASKED]}, "prepare.0.objective=masked_lm learns plain text and no task"),
        (
            {"students__half__general": [{"objective": "soft_labels", "data": ["plain"], "steps": 3}]},
            "general.0.objective=soft_labels learns a task and general stages learn plain text: choose masked_lm or "
            "features",
        ),
        ({"students__half__general__1__lora": {"rank": 2}}, "general.1.lora trains adapters beside an output layer"),
        ({"students__half__general__0__unfrozen": 1}, "general.0.unfrozen=1 counts from the head down"),
        ({"students__half__general__1__data": ["transfer"]}, "names transfer, and there are plain, train"),
        ({"data__plain": None}, "students.half.general learns from plain text and data.plain is not set"),
        ({"students__half__general": None}, "data.plain is read by general stages and there are none"),
        ({"students__half__start": {"kind": "recurrent"}}, "general is for encoders and start.kind=recurrent"),
        (
            {"teacher__answers": "labels", "teacher__prepare": []},
            "general stages are for encoders, and teacher.answers=labels is a language model",
        ),
        ({"teacher__general": [FEATURES]}, "teacher.general.0 learns from a teacher and is a stage of the teacher"),
        (
            {"teacher__general": [MASKED | {"soft_weight": 1.0}]},
            "teacher.general.0 learns from a teacher and is a stage of the teacher itself",
        ),
        (
            {"teacher__general": [MASKED], "teacher__prepare": []},
            "general leaves the teacher without a head for the task and prepare, which would train one, is empty",
        ),
        ({"data__augment": {"plain": {"kind": "rules"}}}, "augment.plain has a name"),
    ],
)
def test_contradictions_are_named_with_the_cure(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**changes)
    assert reason in str(caught.value)
