from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from configs.task_data import Augmentation, TaskDataConfig

MODEL = {"hub": "some/lm"}


@pytest.mark.parametrize(
    ("made", "keeps"),
    [
        ({"kind": "rules"}, True),
        ({"kind": "swap"}, True),
        ({"kind": "masked_lm", "model": MODEL}, True),
        ({"kind": "continuation", "model": MODEL}, False),
    ],
)
def test_a_text_keeps_its_label_unless_somebody_writes_on(made: dict[str, Any], keeps: bool) -> None:
    assert TypeAdapter(Augmentation).validate_python(made).keeps_label is keeps


def test_there_are_texts_without_labels_where_files_or_the_rest_of_train_are_named() -> None:
    def has(**values: Any) -> bool:
        return TaskDataConfig.model_validate(values).has_transfer

    assert not has() and has(transfer=[{"path": "a.jsonl"}])
    assert has(gold={"per_class": 1}) and not has(gold={"per_class": 1, "rest": "drop"})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"augment": {"transfer": {"kind": "rules"}}}, "augment.transfer has a name that a set of examples has"),
        (
            {"augment": {"a": {"kind": "rules", "mask": 0.6, "same_part": 0.5}}},
            "mask=0.6 and same_part=0.5 sum to more",
        ),
        ({"augment": {"a": {"kind": "swap", "copies": 2}}}, "Input should be 1"),
        ({"agreement": {"min_probability": 1.0}}, "less than 1"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TaskDataConfig.model_validate(values)


def test_plain_text_is_written_only_where_it_is_named() -> None:
    assert "plain" not in TaskDataConfig().model_dump(mode="json")
