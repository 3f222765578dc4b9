"""Why the door says no: one shape of error for everything that can go wrong, wherever it does.

`{"error": {"status", "code", "reason", "request_id"}}`: programs read the code, people the reason, and whoever looks
after the door finds the request in the logs by its id. A reason names the field, the value and the limit; it never
tells of the machine, its paths or its other users. On the routes of OpenAI's protocol the same error has its fields
besides: `message` (the reason), `type`, and `param`, the field that is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from configs.errors import CacheError
from configs.visible_text import visible
from teacher_server.http.bodies import (
    WAYS,
    ErrorBody,
    ErrorFacts,
    OpenAiErrorBody,
    OpenAiErrorFacts,
    OpenAiErrorType,
)
from teacher_server.http.desk import BusyError

CACHE_RETRY_S = 10.0
"""After this time a disk that was full or away may be back."""

_MOST_ERRORS = 3
_NAME_CHARACTERS = 60
_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
_TYPES: Mapping[int, OpenAiErrorType] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


class Refusal(Exception):
    """An answer that is none. Raised wherever the reason is found, and sent by the outermost layer.

    `param` is the field of the body that is to blame, where one is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason, self.param = status, code, reason, param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))


def as_refusal(error: Exception) -> Refusal | None:
    """What is said of an error, or None for one that nobody expected."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, BusyError):
        return Refusal(429, "busy", str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, CacheError):
        return Refusal(503, "cache_unavailable", "the cache cannot be read now", retry_after_s=CACHE_RETRY_S)
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        code = _CODES.get(status, status.name.lower())
        return Refusal(status, code, str(error.detail), headers=error.headers)
    return None


def error_response(refusal: Refusal, *, request_id: str, openai: bool = False) -> Response:
    """The answer that says it; `openai` adds the fields of OpenAI's protocol."""
    content = error_json(refusal, request_id=request_id, openai=openai)
    return Response(content, refusal.status, headers=refusal.headers, media_type="application/json")


def error_json(refusal: Refusal, *, request_id: str, openai: bool = False) -> str:
    """Its body."""
    facts = ErrorFacts(status=refusal.status, code=refusal.code, reason=refusal.reason, request_id=request_id)
    if not openai:
        return ErrorBody(error=facts).model_dump_json()
    more = OpenAiErrorFacts(
        **facts.model_dump(), message=refusal.reason, type=_openai_type(refusal.status), param=refusal.param
    )
    return OpenAiErrorBody(error=more).model_dump_json()


def _openai_type(status: int) -> OpenAiErrorType:
    return _TYPES.get(status, "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error")


def _invalid(errors: Sequence[Any]) -> Refusal:
    if errors[0]["type"] == "json_invalid":
        return Refusal(400, "bad_request", f"the body is not JSON: {errors[0]['ctx']['error']}")
    said = [f"{_place(each['loc'])}: {each['msg']}{_value(each)}" for each in errors[:_MOST_ERRORS]]
    if len(errors) > _MOST_ERRORS:
        said.append(f"and {len(errors) - _MOST_ERRORS} more")
    return Refusal(422, "invalid_request", "; ".join(said), param=_place(errors[0]["loc"]))


def _place(place: Sequence[str | int]) -> str:
    """`requests[3].token_ids[0]` of pydantic's way to it."""
    named = ""
    for step in place[1:]:
        if isinstance(step, int):
            named += f"[{step}]"
        elif step not in WAYS:
            # The name of a field that there is not is the client's own.
            shown = visible(step, at_most=_NAME_CHARACTERS)
            named += f".{shown}" if named else shown
    return named or "the body"


def _value(error: Mapping[str, Any]) -> str:
    """The value where it is a number or a truth; texts and what holds them are not repeated."""
    value = error.get("input")
    return f", not {value!r}"[:60] if isinstance(value, bool | int | float) else ""
