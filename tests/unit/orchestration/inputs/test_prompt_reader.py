"""Rows are read and rendered while those before them are tokenised: in order, a few at a time, errors where they stand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from configs import DataError
from configs.schema import DataConfig
from orchestration.inputs.prompt_reader import ROWS_AT_ONCE, PromptReader, control_tokens
from orchestration.inputs.prompts import Prompt
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.templates import ChatTemplates

MANY = 5 * ROWS_AT_ONCE + 7


def reader(templates: ChatTemplates, config: DataConfig) -> PromptReader:
    tokenizer = byte_tokenizer()
    return PromptReader("train", config, tokenizer, templates, 8, control_tokens(tokenizer), None)


@pytest.fixture(params=["raw", "chat"])
def reading(request: pytest.FixtureRequest) -> Iterator[PromptReader]:
    splits = {split: {"path": "rows.jsonl"} for split in ("train", "dev", "test")}
    config = DataConfig.model_validate({**splits, "template": request.param})
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    with ChatTemplates(config, tokenizer) as templates:
        yield reader(templates, config)


def rows(count: int = MANY) -> Iterator[tuple[int, Any]]:
    for at in range(count):
        yield at, "broken" if at % 1000 == 3 else {"prompt": f"row {at}"}


def test_rows_come_in_their_order_each_with_its_own_prompt(reading: PromptReader) -> None:
    found = list(reading.prompts(rows()))
    assert [index for index, _, _ in found] == list(range(MANY))
    for index, _, outcome in found:
        if index % 1000 == 3:
            assert outcome == "broken"
        else:
            assert isinstance(outcome, Prompt) and outcome.text == f"row {index}"
            assert reading.tokenizer.decode(outcome.prompt_ids, skip_special_tokens=True).endswith(f"row {index}")


def test_no_more_than_two_lots_are_read_ahead(reading: PromptReader) -> None:
    read: list[int] = []

    def noted() -> Iterator[tuple[int, Any]]:
        for at, row in rows():
            read.append(at)
            yield at, row

    coming = reading.prompts(noted())
    for _ in range(ROWS_AT_ONCE):
        next(coming)
    coming.close()  # type: ignore[attr-defined]
    assert len(read) <= 2 * ROWS_AT_ONCE


def test_an_error_in_a_later_row_comes_after_the_rows_before(reading: PromptReader) -> None:
    def torn() -> Iterator[tuple[int, Any]]:
        yield from rows(2 * ROWS_AT_ONCE)
        raise DataError("the disk is gone")

    found = []
    with pytest.raises(DataError, match="the disk is gone"):
        for each in reading.prompts(torn()):
            found.append(each)
    assert len(found) == 2 * ROWS_AT_ONCE


def test_no_thread_is_left_behind(reading: PromptReader) -> None:
    before = threading.active_count()
    for _ in range(3):
        next(reading.prompts(rows()))
    list(reading.prompts(rows(3)))
    assert threading.active_count() == before
    assert list(reading.prompts(iter(()))) == []
