"""A task file says everything, and contradictions in it are refused with the cure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.task import TaskConfig

CLASSIFICATION: dict[str, Any] = {
    "name": "tickets",
    "kind": "classification",
    "data": {"train": {"path": "train.jsonl"}, "test": {"path": "test.jsonl"}},
    "fields": {"label": "label"},
    "labels": ["billing", "fault"],
    "template": "Sort: {{ text }}",
    "answer": "{{ label }}",
}


def task(**changes: Any) -> TaskConfig:
    return TaskConfig.model_validate(CLASSIFICATION | changes)


def test_what_is_not_said_follows_from_the_kind() -> None:
    assert task().judged_by == "accuracy"
    assert task().read_by.kind == "label"
    assert task(metric="mcc").judged_by == "mcc"


def test_a_list_of_labels_stands_for_itself() -> None:
    assert task().verbalisers == {"billing": "billing", "fault": "fault"}
    assert task(labels={"b": "billing", "f": "fault"}).verbalisers == {"b": "billing", "f": "fault"}


def test_rows_of_any_kind_may_form_pairs() -> None:
    assert task(fields={"label": "label", "pair": "of"}).fields["pair"] == "of"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fields": {}}, "fields has no label"),
        ({"fields": {"label": "l", "lable": "l"}}, "fields.lable=l: kind=classification knows label, second and pair"),
        ({"labels": None}, "labels is not set"),
        ({"kind": "exact_match", "fields": {"answer": "a"}}, "labels is only used by"),
        ({"labels": ["a", "a"]}, "stands for two labels"),
        ({"labels": ["a", " "]}, "stands for two labels, or for nothing"),
        ({"metric": "bleu"}, "knows accuracy, macro_f1, mcc"),
        ({"few_shot": 2, "answer": None}, "few_shot=2 needs data.train and answer"),
        ({"parser": {"kind": "pattern"}}, "a pattern has a regex"),
        ({"parser": {"kind": "entities"}}, "parser.kind=entities: kind=classification is read by label, first_line"),
        (
            {"kind": "tagging", "fields": {"tokens": "t", "tags": "g"}, "label_scoring": {}},
            "label_scoring is only used",
        ),
        (
            {"kind": "tagging", "fields": {"tokens": "t", "tags": "g"}, "label_is_index": True},
            "label_is_index is only used by classification, not kind=tagging",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        task(**changes)
