"""What a row may hold, what of it can be used, and where its answer ends."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.inputs.conversations import (
    MARKER,
    answer_within,
    messages_of,
    needed_fields,
    tools_of,
    unusable,
    unusable_message,
    unusable_parts,
    words_of,
)

CONTROL = ("<|end|>", "<|user|>")
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}


def test_what_is_null_in_a_message_is_not_in_it() -> None:
    listed = [{"role": "user", "content": "hi", "name": None}, {**CALL, "content": None}]
    assert messages_of(listed) == [{"role": "user", "content": "hi"}, {**CALL, "content": None}]


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (None, "not a list of messages"),
        ("user: hi", "not a list of messages"),
        ([], "not a list of messages"),
        (["hi"], "a message without role and content"),
        ([{"role": "user"}], "a message without role and content"),
        ([{"content": "hi"}], "a message without role and content"),
        ([{"role": "user", "tool_calls": [1]}], "a message without role and content"),
        (
            [{"role": "narrator", "content": "hi"}],
            "a message of role 'narrator', not one of system, user, assistant, tool",
        ),
    ],
)
def test_what_is_not_a_conversation_says_why(listed: object, reason: str) -> None:
    assert messages_of(listed) == reason


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (None, None),
        ("", None),
        ([], None),
        ([{"name": "f"}], [{"name": "f"}]),
        ('[{"name": "f"}]', [{"name": "f"}]),
        ("{", "tools that are not JSON"),
        ("[" * 100_000, "tools that are not JSON"),
        ('{"name": "f"}', "tools that are not a list of JSON objects"),
        (["f"], "tools that are not a list of JSON objects"),
    ],
)
def test_tools_come_as_json_or_as_its_text(listed: object, found: object) -> None:
    assert tools_of(listed) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fine", None),
        (None, "not text but nothing"),
        (3, "not text but int"),
        (" \n", "empty"),
        ("bad \ufffd", "invalid UTF-8"),
        ("half \ud83d", "invalid UTF-8"),
        ("a<|end|>b", "special token <|end|> written as text"),
    ],
)
def test_a_text_is_usable_or_says_why_not(text: object, reason: str | None) -> None:
    assert unusable(text, control=CONTROL) == reason


def test_a_caller_of_tools_need_not_say_anything() -> None:
    assert unusable_message({**CALL, "content": None}, control=CONTROL) is None
    assert unusable_message({"role": "assistant", "content": None}, control=CONTROL) == "not text but nothing"
    spelled: Any = {**CALL, "content": "", "tool_calls": [{"function": {"arguments": "<|user|>"}}]}
    assert unusable_message(spelled, control=CONTROL) == "special token <|user|> written as text"
    assert unusable_parts([{"a": ["x", {"b": "\ufffd"}]}], control=CONTROL) == "invalid UTF-8"


def test_fields_that_say_something_are_needed() -> None:
    assert needed_fields([{"role": "assistant", "content": "a", "thinking": "hm", "reasoning": ""}, CALL]) == {
        "thinking",
        "tool_calls",
    }
    assert words_of({"role": "user", "content": "hi"}) == "hi"
    assert words_of(CALL) == ""


def test_an_answer_is_found_by_what_stands_behind_a_marked_one() -> None:
    answer = {"role": "assistant", "content": " Paris. "}
    marked = f"Q\n<think></think>{MARKER}<end>\n"
    assert answer_within("Q\nParis.<end>\n", answer=answer, marked=marked) == "Paris.<end>\n"
    assert answer_within("Q\nParis.", answer=answer, marked=marked) is None
    assert answer_within("Q\nParis.<end>\n", answer=answer, marked="without the mark") is None
    assert answer_within("Q\nParis.<end>\n", answer={**answer, "thinking": "hm"}, marked=marked) is None
