"""One shape of error for everything that can go wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from configs import CacheError
from teacher_server.http.bodies import ErrorBody, GenerateBody, OpenAiErrorBody, ScoreBody
from teacher_server.http.desk import BusyError
from teacher_server.http.refusals import Refusal, as_refusal, error_response


def invalid(kind: type[ScoreBody | GenerateBody], body: Any) -> Refusal:
    """What is said of a body that is none, as the framework reports it."""
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    errors = [error | {"loc": ("body", *error["loc"])} for error in found.value.errors()]
    refusal = as_refusal(RequestValidationError(errors))
    assert refusal is not None and refusal.code == "invalid_request" and refusal.status == 422
    return refusal


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (BusyError("full", retry_after_s=2.1), 429, "busy", {"Retry-After": "3"}),
        (BusyError("full", retry_after_s=-1.0), 429, "busy", {"Retry-After": "1"}),
        (CacheError("/secret/place: no space left"), 503, "cache_unavailable", {"Retry-After": "10"}),
        (HTTPException(404), 404, "not_found", {}),
        (HTTPException(405, headers={"Allow": "POST"}), 405, "method_not_allowed", {"Allow": "POST"}),
        (HTTPException(418), 418, "im_a_teapot", {}),
    ],
)
def test_an_error_that_is_known_has_its_status(
    error: Exception, status: int, code: str, headers: dict[str, str]
) -> None:
    refusal = as_refusal(error)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.headers) == (status, code, headers)
    assert "/secret" not in refusal.reason


def test_a_refusal_stays_what_it_is_and_a_defect_is_none() -> None:
    refusal = Refusal(409, "code", "reason")
    assert as_refusal(refusal) is refusal
    assert as_refusal(RuntimeError("a defect")) is None


def test_a_place_is_named_as_it_stands_in_the_body_with_the_value_of_numbers() -> None:
    row = {"token_ids": [1, 2.5, -3], "prompt_len": True}
    assert invalid(ScoreBody, {"k": 1, "requests": [row]}).reason == (
        "requests[0].token_ids[1]: Input should be a valid integer, not 2.5; "
        "requests[0].token_ids[2]: Input should be greater than or equal to 0, not -3; "
        "requests[0].prompt_len: Input should be a valid integer, not True"
    )


def test_texts_are_not_repeated_and_many_errors_are_counted() -> None:
    reason = invalid(
        GenerateBody, {"k": "a secret", "requests": [{"prompt": "a", "x": "a secret", "y": 1, "z": 2}]}
    ).reason
    assert "secret" not in reason and reason.endswith("; and 2 more")
    assert invalid(ScoreBody, "a secret").reason.startswith("the body: Input should be a valid dictionary")


def test_the_names_of_fields_that_there_are_not_are_shown_safely_and_cut() -> None:
    body = {"k": 1, "requests": [{"token_ids": [1, 2], "prompt_len": 1}]}
    assert invalid(ScoreBody, body | {"\u202e\n": 1}).reason == "\\u202e\\n: Extra inputs are not permitted, not 1"
    assert len(invalid(ScoreBody, body | {"x" * 10_000: 1}).reason) < 120


def test_a_body_that_is_not_json_says_why() -> None:
    error = {
        "type": "json_invalid",
        "loc": ("body", 3),
        "msg": "JSON decode error",
        "ctx": {"error": "Expecting value"},
    }
    refusal = as_refusal(RequestValidationError([error]))
    assert refusal is not None and refusal.status == 400
    assert refusal.reason == "the body is not JSON: Expecting value"


def test_the_answer_says_all_of_it() -> None:
    response = error_response(Refusal(429, "busy", "full", retry_after_s=7.0), request_id="abc")
    assert response.status_code == 429 and response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/json"
    assert json.loads(bytes(response.body)) == {
        "error": {"status": 429, "code": "busy", "reason": "full", "request_id": "abc"}
    }
    ErrorBody.model_validate_json(bytes(response.body))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (413, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_clients_of_openai_s_protocol_find_their_fields_beside_the_door_s(status: int, kind: str) -> None:
    refusal = Refusal(status, "a_code", "n=0: too few", retry_after_s=3, param="n")
    response = error_response(refusal, request_id="an-id", openai=True)
    assert response.status_code == status and response.headers["retry-after"] == "3"
    body = OpenAiErrorBody.model_validate_json(bytes(response.body))
    assert body.error.model_dump() == {
        "status": status, "code": "a_code", "reason": "n=0: too few", "request_id": "an-id",
        "message": "n=0: too few", "type": kind, "param": "n",
    }  # fmt: skip
    plain = json.loads(bytes(error_response(refusal, request_id="an-id").body))["error"]
    assert plain == {name: getattr(body.error, name) for name in ("status", "code", "reason", "request_id")}


def test_the_field_that_is_to_blame_is_named_by_itself() -> None:
    assert invalid(ScoreBody, {"k": 0, "requests": []}).param == "k"
    assert invalid(ScoreBody, {"k": 1, "requests": [{"token_ids": [-1], "prompt_len": 1}]}).param == (
        "requests[0].token_ids[0]"
    )
