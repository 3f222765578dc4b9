"""What one connection may cost before there is a request, between requests, and while an answer is written.

uvicorn bounds the time between two requests alone: a client that never finishes its headers, or never reads its
answer, keeps its connection and what waits in it for ever, and headers may be as long as memory is. Here each of them
ends, and who can still be told is told in the form of every other refusal (`refusals`). Bodies are the door's
(`layers.WholeBody`).

    uvicorn.Config(app, http=bounded(ConnectionLimits()), timeout_keep_alive=75)
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from teacher_server.http.refusals import Refusal, error_response

FULL_RETRY_S = 10.0
"""After this time connections that nobody uses have been closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How long a connection may be without a use, and how many there may be.

    The headers of a request have to be there `headers_s` after its first byte, and so has the first byte of a new
    connection. Whoever takes nothing of an answer for `stalled_s` is cut off.
    """

    headers_s: float = 20.0
    stalled_s: float = 60.0
    most_connections: int = 1024
    most_header_bytes: int = 64 * 2**10


def bounded(limits: ConnectionLimits) -> type[BoundedConnection]:
    """The protocol with these limits, as `uvicorn.Config(http=...)` takes it."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})


class BoundedConnection(HttpToolsProtocol):
    """One connection of uvicorn's within limits. No WebSockets: they would be bounded by nothing of this."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request, unless there are too many connections."""
        super().connection_made(transport)
        most = self.limits.most_connections
        if len(self.connections) > most:
            reason = f"there are {most:,} connections already: use one for many requests"
            self._refuse(Refusal(503, "too_many_connections", reason, retry_after_s=FULL_RETRY_S))
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was expected."""
        self._headers_came()
        self._forget_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request. Between two of them it begins the headers of the next one."""
        before = self.cycle
        if self._headers_due is None and (before is None or before.response_complete):
            self._expect_headers()
        super().data_received(data)
        # uvicorn makes a new cycle as soon as the headers are whole.
        if self.cycle is not before:
            self._headers_came()
        elif self._headers_due is not None:
            self._header_bytes += len(data)
            most = self.limits.most_header_bytes
            if self._header_bytes > most and not self.transport.is_closing():
                self._refuse(Refusal(431, "headers_too_large", f"the headers have more than {most:,} bytes"))

    def pause_writing(self) -> None:
        """More of an answer waits than is taken: see that some of it is taken."""
        super().pause_writing()
        if self._reading_due is None:
            self._expect_reading()

    def resume_writing(self) -> None:
        """It is taken."""
        self._forget_reading()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is no request, in the form of every other refusal."""
        self._refuse(Refusal(400, "bad_request", "this is not a request of HTTP/1.1"))

    def _should_upgrade(self) -> bool:
        return False

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._headers_due = self.loop.call_later(self.limits.headers_s, self._headers_late)

    def _headers_came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _headers_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._header_bytes:
            reason = f"the headers were not there within {self.limits.headers_s:g} s"
            self._refuse(Refusal(408, "headers_too_slow", reason))
        else:
            # Nothing was asked: a browser, or a pool, that opened a connection for later.
            self.transport.close()

    def _expect_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading_due = self.loop.call_later(self.limits.stalled_s, self._require_reading, left)

    def _forget_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _require_reading(self, left_before: int) -> None:
        if self.transport.get_write_buffer_size() < left_before:
            self._expect_reading()
        else:
            # To close it would wait for the reader.
            self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        request_id = uuid.uuid4().hex
        response = error_response(refusal, request_id=request_id)
        status = HTTPStatus(refusal.status)
        headers = [
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b": ".join(each) for each in headers)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))
        self.transport.close()
