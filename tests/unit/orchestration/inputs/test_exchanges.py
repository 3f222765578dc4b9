"""What is judged as a whole: prompts with their answers, conversations in turns, the texts of a task without labels."""

from __future__ import annotations

from typing import Any

import pytest

from configs import load_task_file
from configs.data import DataConfig
from orchestration.inputs.exchanges import (
    Exchange,
    exchange_of_prompts,
    exchange_of_task,
    exchange_of_text,
    whole_row,
)

SPLIT = {"path": "rows.jsonl"}


def prompts(**keys: Any) -> Any:
    return exchange_of_prompts(DataConfig.model_validate({"test": SPLIT} | keys))


@pytest.mark.parametrize(
    ("row", "keys", "expected"),
    [
        ({"prompt": "hello", "id": "bomb 7"}, {}, Exchange.of("hello")),
        ({"prompt": "hello", "answer": "bye"}, {"response_field": "answer"}, Exchange.of("hello", "bye")),
        ({"prompt": "hello", "answer": None}, {"response_field": "answer"}, Exchange.of("hello")),
        ({"text": "hello"}, {}, None),
        ({"talk": "hello"}, {"messages_field": "talk"}, None),
    ],
)
def test_a_row_of_prompts_is_its_prompt_and_its_gold_answer(
    row: dict[str, Any], keys: dict[str, Any], expected: Exchange | None
) -> None:
    assert prompts(**keys)(row) == expected


def test_turns_of_a_conversation_go_to_and_fro_and_the_last_is_judged() -> None:
    roles = [("system", "be kind"), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    row = {"talk": [{"role": role, "content": text} for role, text in roles]}
    found = prompts(messages_field="talk")(row)
    assert found.turns == (
        ("user", "be kind\n\none"), ("assistant", "two"), ("user", "three"), ("assistant", "four"),
    )  # fmt: skip
    assert found.is_answer and found.answer == "four"
    assert found.prompt == "User: be kind\n\none\n\nAssistant: two\n\nUser: three"
    assert (Exchange.of("one").prompt, Exchange.of("one").answer, Exchange.of("one", "two").prompt) == (
        "one", "", "one",
    )  # fmt: skip


def test_plain_text_and_tasks_are_judged_without_what_is_no_text(tmp_path: Any) -> None:
    assert exchange_of_text("story")({"story": "once"}) == Exchange.of("once")
    assert exchange_of_text("story")({"story": " "}) is exchange_of_text("story")({}) is None
    assert whole_row({"a": "one", "b": ["two", "words"], "c": {"d": ["three", {"e": "four"}]}, "f": 5}) == Exchange.of(
        "one\ntwo words\nthree\nfour"
    )
    task = tmp_path / "task.yaml"
    task.write_text(
        "name: words\nkind: tagging\nlabels: [PER]\nfields: {tokens: words, tags: marks}\n"
        "data: {test: {path: rows.jsonl}}\ntemplate: '{{ words }}'\n"
    )
    judged = exchange_of_task(load_task_file(task))
    assert judged({"words": ["Ada", "sings"], "marks": ["B-PER", "O"], "note": "bomb"}) == Exchange.of("Ada sings")
    assert judged({"marks": ["O"]}) is None
