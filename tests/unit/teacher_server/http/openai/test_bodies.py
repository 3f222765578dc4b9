"""The JSON of OpenAI's protocol that the door takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from teacher_server.http.openai.bodies import MOST_STOPS, AskedBody, ChatBody, CompletionBody

PLAIN = {"model": "m", "prompt": "a"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


def completion(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate_json(json.dumps(PLAIN | fields))


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate_json(json.dumps(CHAT | fields))


def refused(make: Any, **fields: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Places and kinds of what is wrong."""
    with pytest.raises(ValidationError) as found:
        make(**fields)
    return [(error["loc"], error["type"]) for error in found.value.errors()]


@pytest.mark.parametrize("prompt", ["", "a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_prompt_is_a_text_ids_or_a_list_of_either(prompt: Any) -> None:
    assert completion(prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ([], ("prompt",)),
        (None, ("prompt",)),
        ({}, ("prompt",)),
        ([1, "a"], ("prompt", "by token ids", 1)),
        (["a", 1], ("prompt", "by texts", 1)),
        ([[1], [1.5]], ("prompt", "by lists of token ids", 1, 0)),
        ([True], ("prompt", "by token ids", 0)),
        ([-1], ("prompt", "by token ids", 0)),
        ("\ud800", ("prompt", "by text")),
    ],
)
def test_a_prompt_that_is_none_is_refused_where_it_is_wrong(prompt: Any, place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as found:
        CompletionBody.model_validate(PLAIN | {"prompt": prompt})
    assert [error["loc"] for error in found.value.errors()] == [place]


MEANS_NOTHING: dict[str, Any] = {
    "suffix": "", "logit_bias": {}, "store": False, "min_tokens": 0, "length_penalty": 1.0, "use_beam_search": False,
    "response_format": {"type": "text"}, "skip_special_tokens": True, "add_special_tokens": True, "bad_words": [],
}  # fmt: skip
MEANS_NOTHING_IN_CHATS: dict[str, Any] = {
    "tools": [], "tool_choice": "auto", "functions": [], "function_call": "none", "modalities": ["text"],
    "parallel_tool_calls": True, "chat_template_kwargs": {}, "add_generation_prompt": True, "echo": False,
}  # fmt: skip
DOES_SOMETHING: dict[str, Any] = {
    "suffix": "x", "logit_bias": {"5": -100}, "store": True, "min_tokens": 1, "length_penalty": 0.5,
    "use_beam_search": True, "response_format": {"type": "json_object"}, "skip_special_tokens": False,
    "truncate_prompt_tokens": 3, "structured_outputs": {"json": {}}, "allowed_token_ids": [1],
}  # fmt: skip
DOES_SOMETHING_IN_CHATS: dict[str, Any] = {
    "tools": [{"type": "function"}], "tool_choice": "required", "modalities": ["audio"], "reasoning_effort": "low",
    "chat_template_kwargs": {"a": 1}, "continue_final_message": True, "web_search_options": {}, "echo": True,
}  # fmt: skip


@pytest.mark.parametrize("field", MEANS_NOTHING)
def test_a_field_that_would_be_ignored_may_hold_what_means_nothing(field: str) -> None:
    for value in (MEANS_NOTHING[field], None):
        completion(**{field: value})


@pytest.mark.parametrize("field", MEANS_NOTHING_IN_CHATS)
def test_so_may_those_of_chats(field: str) -> None:
    for value in (MEANS_NOTHING_IN_CHATS[field], None):
        chat(**{field: value})


@pytest.mark.parametrize("field", DOES_SOMETHING)
def test_otherwise_it_is_refused_by_its_name(field: str) -> None:
    assert refused(completion, **{field: DOES_SOMETHING[field]}) == [((field,), "not_served")]


@pytest.mark.parametrize("field", DOES_SOMETHING_IN_CHATS)
def test_so_are_those_of_chats(field: str) -> None:
    assert refused(chat, **{field: DOES_SOMETHING_IN_CHATS[field]}) == [((field,), "not_served")]


def test_nothing_is_what_it_looks_like_to_python_alone() -> None:
    assert refused(completion, store=0) == [(("store",), "not_served")]
    assert refused(completion, min_tokens=False) == [(("min_tokens",), "not_served")]


@pytest.mark.parametrize("make", [completion, chat])
def test_a_field_that_nobody_knows_is_refused(make: Any) -> None:
    assert refused(make, guided_json="{}") == [(("guided_json",), "extra_forbidden")]


@pytest.mark.parametrize("make", [completion, chat])
def test_labels_are_let_in_and_null_is_not_given(make: Any) -> None:
    make(user="me", metadata={"a": "b"}, service_tier="auto", prompt_cache_key="x", safety_identifier="y")
    required = {"model", "prompt", "messages"}
    make(**dict.fromkeys(AskedBody.model_fields.keys() - required))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"n": 0}, ("n",)),
        ({"n": 129}, ("n",)),
        ({"temperature": -0.1}, ("temperature",)),
        ({"top_p": 0}, ("top_p",)),
        ({"top_k": -2}, ("top_k",)),
        ({"seed": -1}, ("seed",)),
        ({"seed": 2**63}, ("seed",)),
        ({"max_tokens": -1}, ("max_tokens",)),
        ({"max_tokens": "5"}, ("max_tokens",)),
        ({"logprobs": True}, ("logprobs",)),
        ({"presence_penalty": 2.5}, ("presence_penalty",)),
        ({"stop": ["a"] * (MOST_STOPS + 1)}, ("stop", "by texts")),
        ({"stop": ""}, ("stop", "by text")),
        ({"stop": [""]}, ("stop", "by texts", 0)),
        ({"stop": 5}, ("stop",)),
        ({"stream_options": {"more": 1}}, ("stream_options", "more")),
    ],
)
def test_what_is_out_of_bounds_is_refused_where_it_is_wrong(
    fields: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    assert [loc for loc, _ in refused(completion, **fields)] == [place]


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "king", "content": "a"}, ("role",)),
        ({"role": "user", "content": None}, ("content",)),
        ({"role": "user", "content": []}, ("content", "by texts")),
        ({"role": "user", "content": [{"type": "image_url", "text": "a"}]}, ("content", "by texts", 0, "type")),
        ({"role": "assistant", "content": "a", "tool_calls": [{}]}, ("tool_calls",)),
        ({"role": "user", "content": "a", "name": "me"}, ("name",)),
    ],
)
def test_a_message_that_is_none_is_refused_where_it_is_wrong(
    message: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    assert [loc for loc, _ in refused(chat, messages=[message])] == [("messages", 0, *place)]


def test_the_schema_says_what_means_nothing() -> None:
    fields = CompletionBody.model_json_schema()["properties"]
    assert fields["suffix"]["enum"] == [None, ""] and fields["logit_bias"]["enum"] == [None, {}]
