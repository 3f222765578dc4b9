"""What every request passes before it is looked at, from the outside in.

    Envelope     a request id, one line in the log, one count, and every error in the same shape
    Admitted     no new requests while the door is being closed; those inside are waited for
    Entrance     the Host, the token, the quota of requests
    TimeLimit    an answer within some time, or none
    WholeBody    the body as a whole, within a size and a time, before anybody works on it

Plain ASGI: Starlette's `BaseHTTPMiddleware` puts a task and a queue between a request and its answer, and loses
cancellation on the way. Strangers are sent away before a byte of their body is taken.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.errors import CacheError
from teacher_server.http.exchange import Exchange, exchange_of, request_id
from teacher_server.http.guard import Guard
from teacher_server.http.metrics import Metrics
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal, as_refusal, error_response
from teacher_server.http.served import DoorLimits

PROBES = frozenset({"/healthz", "/readyz"})
"""What orchestrators ask, by any name and at any time, and everybody may know."""

OPENAI = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/models"})
"""Whose clients look for errors in the form of OpenAI, as those of the models below the last one do."""

OPEN = PROBES | {"/openapi.json"}
"""What is told without a token."""

OURS = "X-Content-Type-Options"
"""Every answer of the door has this header; those of a server that stands before it have not (`front`)."""

DRAINING_RETRY_S = 10.0
"""After this time another door may stand in the place of one that is being closed."""

_MOST_DIGITS = 18

_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client went away in the middle of its body: there is nobody to answer."""


class Layer(ABC):
    """One of them around all that is inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no request (the lifespan of the app) passes as it is."""
        await (self.handle if scope["type"] == "http" else self._app)(scope, receive, send)

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what the layer does to a request."""


class Envelope(Layer):
    """Everything that a request is told of outside its answer."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every error in the same shape, and write down how the request ended."""
        headers = Headers(scope=scope)
        exchange = Exchange(
            request_id(headers.get("x-request-id")), scope["method"], openai=speaks_openai(_path(scope))
        )
        scope.setdefault("state", {})["exchange"] = exchange

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status, exchange.answering = message["status"], True
                _mark(MutableHeaders(scope=message), exchange, scope)
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except (ClientGone, ClientDisconnect):
            pass
        finally:
            # Starlette tells which route it took in the scope; a path that nobody serves is not repeated.
            exchange.route = getattr(scope.get("route"), "path", "")
            exchange.write()
            self._metrics.count(exchange)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except (ClientGone, ClientDisconnect):
            raise
        # A defect must not cost more than the request that it met, nor tell it more than that there is one.
        except Exception as error:  # noqa: BLE001
            refusal = as_refusal(error)
            if refusal is None:
                _log.error("request %s: a defect: %s", exchange.request_id, _without_texts(error))
            elif isinstance(error, CacheError):
                _log.error("request %s: %s", exchange.request_id, error)
            if not exchange.answering:
                said = refusal or Refusal(500, "internal", "a defect of the door: tell its operator the request id")
                response = error_response(said, request_id=exchange.request_id, openai=exchange.openai)
                await response(scope, receive, send)


class Admission:
    """Who is inside, and whether others may come."""

    def __init__(self) -> None:
        self.closed = False
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def close(self) -> None:
        """Let nobody in any more, and wait until all who are inside have their answers."""
        self.closed = True
        await self._empty.wait()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For the time of a request.

        Raises:
            Refusal: 503, it is closed.
        """
        if self.closed:
            raise Refusal(503, "draining", "the door is being closed", retry_after_s=DRAINING_RETRY_S)
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()


class Admitted(Layer):
    """Lets nobody in who would not be answered any more."""

    def __init__(self, app: ASGIApp, *, admission: Admission) -> None:
        super().__init__(app)
        self._admission = admission

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request in and out."""
        with nullcontext() if _path(scope) in PROBES else self._admission.inside():
            await self._app(scope, receive, send)


class Entrance(Layer):
    """Who it is, and whether they may come in."""

    def __init__(self, app: ASGIApp, *, guard: Guard, quotas: Quotas) -> None:
        super().__init__(app)
        self._guard, self._quotas = guard, quotas

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in whoever may."""
        path = _path(scope)
        if path not in PROBES:
            headers = Headers(scope=scope)
            self._guard.require_host(headers.getlist("host"))
            if path not in OPEN:
                exchange = exchange_of(scope)
                exchange.key = self._guard.key_of(headers.getlist("authorization"))
                self._quotas.count_request(exchange.key.name)
        await self._app(scope, receive, send)


class TimeLimit(Layer):
    """Ends a request that takes too long; what the teacher was asked goes on, and is there when it is asked again."""

    def __init__(self, app: ASGIApp, *, limits: DoorLimits) -> None:
        super().__init__(app)
        self._limits = limits

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait so long and no longer."""
        seconds = self._limits.request_s
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._app(scope, receive, send)
        except TimeoutError as error:
            if not limit.expired():
                raise
            reason = f"no answer within {seconds:g} s; what the teacher was asked goes on: ask again"
            raise Refusal(504, "too_slow", reason, retry_after_s=1.0) from error


class WholeBody(Layer):
    """Takes in the body before the request goes on, whether its length was told or not."""

    def __init__(self, app: ASGIApp, *, limits: DoorLimits) -> None:
        super().__init__(app)
        self._limits = limits

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and hand it on in one piece."""
        headers = Headers(scope=scope)
        self._require_size(_told_size(headers.get("content-length", "0")))
        body = await self._read(receive)
        exchange_of(scope).body_read = True
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            raise Refusal(415, "not_json", "Content-Type has to be application/json")
        taken = False

        async def again() -> Message:
            nonlocal taken
            if taken:
                return await receive()
            taken = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _read(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._limits.body_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._require_size(size)
                    more = message.get("more_body", False)
        except TimeoutError as error:
            reason = f"the body was not there within {self._limits.body_s:g} s"
            raise Refusal(408, "body_too_slow", reason) from error
        return b"".join(parts)

    def _require_size(self, size: int) -> None:
        most = self._limits.most_body_bytes
        if size > most:
            raise Refusal(413, "body_too_large", f"the body has more than {most:,} bytes: ask in several requests")


def _path(scope: Scope) -> str:
    """The path as the door knows it, wherever a server has put the door."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def speaks_openai(path: str) -> bool:
    """Whether whoever asks there looks for errors in the form of OpenAI."""
    return path in OPENAI or path.startswith("/v1/models/")


def _told_size(told: str) -> int:
    if not told.isdecimal() or len(told) > _MOST_DIGITS:
        raise Refusal(400, "bad_request", "Content-Length is not a number of bytes")
    return int(told)


def _mark(headers: MutableHeaders, exchange: Exchange, scope: Scope) -> None:
    headers["X-Request-Id"] = exchange.request_id
    headers["Cache-Control"] = "no-store"
    headers[OURS] = "nosniff"
    # What is left of a body that nobody wants would be read as the next request, or for ever.
    if not exchange.body_read and scope["http_version"].startswith("1"):
        headers["Connection"] = "close"


def _without_texts(error: Exception) -> str:
    """What an error is and where it came from; its message may hold what somebody asked."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))
    return f"{type(error).__name__} at {where}"
