"""Between clients and a server that stands before the door, such as Ray Serve's proxy: nothing but the door is heard.

Such a server has words of its own where the door is away (a process that died and is started again), takes orders in
headers that are meant for its friends, and holds whatever it is sent until somebody wants it. Here its words become a
503 in the form of the door's own refusals, its headers and pages reach nobody, and what it holds of a body is bounded.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from teacher_server.http.exchange import request_id
from teacher_server.http.layers import OURS, speaks_openai
from teacher_server.http.refusals import Refusal, error_response

AWAY_RETRY_S = 5.0
"""After this time the door may be there again."""

SERVER_PAGES = "/-/"
"""Below this Ray Serve answers itself; its health is all that is needed of it."""

HEALTH_PAGE = "/-/healthz"

_ORDERS = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    }
)
"""Headers by which a client would tell Ray Serve when to give up, and which process to ask."""


class Front:
    """Around the app of the server. Of a body it takes `most_body_bytes` and lets the rest go by."""

    def __init__(self, app: ASGIApp, *, most_body_bytes: int) -> None:
        self._app = app
        self._most_body_bytes = most_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and the answer back if it is the door's."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PAGE:
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _ORDERS]
        scope = {**scope, "headers": headers}
        if scope["path"].startswith(SERVER_PAGES):
            await _refuse(Refusal(404, "not_found", "Not Found"), scope, receive, send)
            return
        sending = _OfTheDoor(send)
        try:
            await self._app(scope, _Bounded(receive, at_most=self._most_body_bytes), sending)
        # What a server raises about one request must not be read by who made it; it writes it down itself.
        except Exception:
            if not sending.answering:
                await _refuse(_away(), scope, receive, send)
            raise
        if not sending.answering:
            await _refuse(_away(), scope, receive, send)


class _OfTheDoor:
    """Sends an answer on if the door made it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.answering = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answering = OURS in Headers(raw=message["headers"])
        if self.answering:
            await self._send(message)


class _Bounded:
    """Receives a body and forgets what is too much of it; whoever counts it sees that it is."""

    def __init__(self, receive: Receive, *, at_most: int) -> None:
        self._receive = receive
        self._left = at_most

    async def __call__(self) -> Message:
        while True:
            message = await self._receive()
            if message["type"] != "http.request" or self._left >= 0:
                self._left -= len(message.get("body", b""))
                return message
            if not message.get("more_body", False):
                return {**message, "body": b""}


def _away() -> Refusal:
    return Refusal(503, "door_away", "the door is away and is started again: ask again", retry_after_s=AWAY_RETRY_S)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """What is left of the body is not read, so the connection ends."""
    id_ = request_id(Headers(scope=scope).get("x-request-id"))
    refusal.headers |= {"X-Request-Id": id_, "Cache-Control": "no-store", "Connection": "close"}
    response = error_response(refusal, request_id=id_, openai=speaks_openai(scope["path"]))
    await response(scope, receive, send)
