"""What bodies take and what they refuse."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cache.records import GenerateRequest
from teacher_server.http.bodies import (
    AnswerRow,
    GenerateBody,
    Sampling,
    ScoreBody,
    ScoredIds,
    ScoredMessages,
    ScoredText,
    WrittenAfterIds,
    WrittenAfterMessages,
    WrittenAfterText,
)

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
IDS = {"token_ids": [1, 2], "prompt_len": 1}


def score(row: Any, **more: Any) -> ScoreBody:
    return ScoreBody.model_validate({"k": 1, "requests": [row]} | more)


def generate(row: dict[str, Any], **more: Any) -> GenerateBody:
    return GenerateBody.model_validate({"k": 0, "requests": [{"max_new_tokens": 4} | row]} | more)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (IDS, ScoredIds),
        ({"prompt": "a", "completion": "b"}, ScoredText),
        ({"messages": TALK}, ScoredMessages),
    ],
)
def test_a_sequence_is_said_in_one_of_three_ways(row: dict[str, Any], kind: type[BaseModel]) -> None:
    assert type(score(row).requests[0]) is kind


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt_ids": [1]}, WrittenAfterIds),
        ({"prompt": "a"}, WrittenAfterText),
        ({"messages": TALK[:1]}, WrittenAfterMessages),
    ],
)
def test_a_prompt_is_said_in_one_of_three_ways(row: dict[str, Any], kind: type[BaseModel]) -> None:
    assert type(generate(row).requests[0]) is kind


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "give token_ids and prompt_len, or prompt and completion, or messages"),
        ("text", "give token_ids and prompt_len"),
        (IDS | {"messages": TALK}, "Extra inputs are not permitted"),
        (IDS | {"prompt_len": True}, "valid integer"),
        (IDS | {"prompt_len": 0}, "greater than or equal to 1"),
        (IDS | {"token_ids": [True]}, "valid integer"),
        (IDS | {"token_ids": ["3"]}, "valid integer"),
        (IDS | {"token_ids": [3.0]}, "valid integer"),
        (IDS | {"token_ids": [-1]}, "greater than or equal to 0"),
        (IDS | {"token_ids": [2**31]}, "less than or equal to 2147483647"),
        ({"prompt": "a", "completion": None}, "valid string"),
        ({"prompt": "a"}, "Field required"),
        ({"prompt": "\ud800", "completion": "b"}, "half of a surrogate pair"),
        ({"messages": TALK[:1]}, "at least 2 items"),
        ({"messages": [TALK[0], {"role": "robot", "content": "a"}]}, "Input should be 'system'"),
    ],
)
def test_a_sequence_that_is_said_otherwise_is_refused(row: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        score(row)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -1}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"sampling_seed": 2**63}, "sampling_seed"),
        ({"replicate": 1.0}, "replicate"),
        ({"stop_ids": [0] * 257}, "stop_ids"),
        ({"grammar": "x" * 65_537}, "grammar"),
        ({"grammar": "\udfff"}, "grammar"),
        ({"seed": 1}, "seed"),
    ],
)
def test_every_number_of_the_sampling_has_a_type_and_bounds(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        generate({"prompt_ids": [1]} | change)
    assert [error["loc"][-1] for error in refused.value.errors()] == [place]


@pytest.mark.parametrize("k", [True, "1", 1.0, None, 2**31])
def test_k_is_an_integer(k: Any) -> None:
    with pytest.raises(ValidationError):
        score(IDS, k=k)
    with pytest.raises(ValidationError):
        generate({"prompt_ids": [1]}, k=k)


def test_nothing_is_scored_without_log_probabilities_and_nothing_is_asked_without_rows() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        score(IDS, k=0)
    with pytest.raises(ValidationError, match="at least 1 item"):
        score(IDS, requests=[])


def test_every_sampling_field_of_a_request_can_be_said_and_has_its_default() -> None:
    of_request = {field.name: field.default for field in fields(GenerateRequest)}
    said = {name: field.default for name, field in Sampling.model_fields.items()}
    assert set(said) == set(of_request) - {"prompt_ids"}
    sampled = set(said) - {"max_new_tokens", "stop_ids"}
    assert {name: said[name] for name in sampled} == {name: of_request[name] for name in sampled}


def test_an_answer_has_no_infinity() -> None:
    row: dict[str, Any] = {"token_ids": [1, 2], "prompt_len": 1, "finish": "stop", "cached": True}
    assert AnswerRow(**row, tail_logmass=[None]).tail_logmass == [None]
    with pytest.raises(ValidationError, match="finite"):
        AnswerRow(**row, tail_logmass=[float("-inf")])
