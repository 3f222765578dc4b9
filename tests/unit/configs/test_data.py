"""Where rows lie and how they become prompts: what does not go together is refused with both values."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs import schema
from configs.data import TEMPLATE_DATE, DataConfig, SplitConfig


def data(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({split: {"hub": "a/b"} for split in ("train", "dev", "test")} | settings)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SplitConfig(), ["path=None", "hub=None"]),
        (lambda: SplitConfig(path=Path("a"), hub="b"), ["path=a", "hub=b"]),
        (lambda: data(template="raw", system_prompt="be kind"), ["system_prompt", "template=raw"]),
        (lambda: data(template="raw", messages_field="turns"), ["messages_field", "template=raw"]),
        (lambda: data(template="raw", template_date="2024-01-01"), ["template_date", "template=raw"]),
        (lambda: data(template="alpaca", chat_template="rag"), ["chat_template", "template=alpaca"]),
        (
            lambda: data(template_kwargs={"messages": []}),
            ["template_kwargs.messages", "given to every template anyway"],
        ),
        (lambda: data(tools_field="tools"), ["tools_field=tools", "messages_field"]),
    ],
)
def test_contradictions_name_both_values(build: Any, words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        build()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [({}, None), ({"limit": 5}, 5), ({"split": "train"}, None), ({"split": "train[10:30]"}, 20),
     ({"split": "train[:30]", "limit": 7}, 7), ({"split": "train[:10%]"}, None)],
)  # fmt: skip
def test_rows_are_assumed_as_far_as_they_are_known(settings: dict[str, Any], rows: int | None) -> None:
    assert SplitConfig(hub="a/b", **settings).assumed_rows == rows


def test_templates_are_given_a_day_that_is_not_today() -> None:
    assert data().date_of_templates == TEMPLATE_DATE
    assert data(template_date=date(2025, 1, 2)).date_of_templates == date(2025, 1, 2)


def test_the_schema_of_an_experiment_has_these_blocks() -> None:
    assert (schema.DataConfig, schema.SplitConfig) == (DataConfig, SplitConfig)
