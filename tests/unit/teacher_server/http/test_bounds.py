"""Connections that are idle, slow, too many or not HTTP, against a real server on the loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
from open_app import listening
from raw_http import connected, refused, until_closed
from uvicorn import Config
from uvicorn.server import ServerState

from teacher_server.http.bounds import ConnectionLimits, bounded

LIMITS = ConnectionLimits(headers_s=0.5, stalled_s=0.5, most_connections=4, most_header_bytes=300_000)
REQUEST = b"GET /%d HTTP/1.1\r\nHost: door\r\n\r\n"
MUCH = 64 * 2**20
"""More than the kernel holds between the two."""

let_go = threading.Event()
"""Set when the bytes of an answer were taken, or its connection is gone."""


class HandClock:
    """The timers of an event loop, with a clock that is moved by hand: no machine is too slow for it."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._timers: list[HandTimer] = []

    def call_later(self, delay_s: float, call: Callable[..., None], *args: object) -> HandTimer:
        self._timers.append(HandTimer(self._now_s + delay_s, partial(call, *args)))
        return self._timers[-1]

    def pass_by(self, seconds: float) -> None:
        """Call what is due by then."""
        self._now_s += seconds
        due = [timer for timer in self._timers if timer.at_s <= self._now_s]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.call()


@dataclass(eq=False)
class HandTimer:
    """A timer of `HandClock`."""

    at_s: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class SlowReader(asyncio.Transport):
    """A connection whose other end has taken all but `waiting` bytes of an answer."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with as many bytes as the path says."""
    body = bytes(int(scope["path"][1:]))
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Waits while the connection holds too much of it.
    await send({"type": "http.response.body"})
    if body:
        let_go.set()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(app, lifespan="off", http=bounded(LIMITS), timeout_keep_alive=3) as url:
        yield int(url.rpartition(":")[2])


def said(received: bytes) -> tuple[int, str]:
    """Status and code of an answer that is none."""
    error = refused(received)
    return error["status"], error["code"]


def test_whoever_says_nothing_is_not_waited_for(port: int) -> None:
    with connected(port) as client:
        assert until_closed(client) == b""


@pytest.mark.parametrize("begun", [b"G", b"GET /0 HTTP/1.1\r\nHost: door\r\nX-Begun: "])
def test_headers_that_are_never_finished_are_given_up(port: int, begun: bytes) -> None:
    with connected(port) as client:
        client.sendall(begun)
        assert said(until_closed(client)) == (408, "headers_too_slow")


@pytest.mark.parametrize("after", [0, 1])
def test_so_are_those_that_drip_on_a_new_connection_and_on_a_used_one(port: int, after: int) -> None:
    with connected(port) as client:
        for _ in range(after):
            client.sendall(REQUEST % 0)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /0 HTTP/1.1\r\n")
        client.settimeout(0.05)
        received = b""
        for _ in range(200):
            client.sendall(b"X")
            try:
                received = client.recv(1000)
                break
            except TimeoutError:
                continue
        client.settimeout(20)
        assert said(until_closed(client, first=received)) == (408, "headers_too_slow")


def test_a_used_connection_is_kept_for_a_while_and_not_for_ever(port: int) -> None:
    with connected(port) as client:
        for _ in range(3):
            client.sendall(REQUEST % 0)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(0.6)
        assert until_closed(client) == b""


def test_headers_are_as_long_as_they_may_be(port: int) -> None:
    with connected(port) as client:
        begun = b"GET /0 HTTP/1.1\r\nHost: door\r\n" + (b"X-Much: " + b"x" * 20_000 + b"\r\n") * 20
        # Not one byte more than is refused: a connection that is closed over unread bytes loses what it was told.
        client.sendall(begun[: LIMITS.most_header_bytes + 1])
        assert said(until_closed(client)) == (431, "headers_too_large")
    with connected(port) as client:
        client.sendall(b"GET /0 HTTP/1.1\r\nHost: door\r\nConnection: close\r\nX-Much: " + b"x" * 20_000 + b"\r\n\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET /0 HTTP/1.1\r\nHo st: x\r\n\r\n"]
)
def test_what_is_no_request_is_refused_in_the_same_form(port: int, sent: bytes) -> None:
    with connected(port) as client:
        client.sendall(sent)
        assert said(until_closed(client)) == (400, "bad_request")


def test_there_are_only_so_many_connections_and_room_comes_back(port: int) -> None:
    # Each is a used one, so that the server is known to have it.
    taken = [connected(port) for _ in range(LIMITS.most_connections)]
    for client in taken:
        client.sendall(REQUEST % 0)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    with connected(port) as client:
        assert said(until_closed(client)) == (503, "too_many_connections")
    for client in taken:
        client.close()
    for _ in range(100):
        with connected(port) as client:
            client.sendall(b"GET /0 HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n")
            if until_closed(client).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.05)
    raise AssertionError("no room came back")


def test_whoever_does_not_read_is_cut_off(port: int) -> None:
    with connected(port) as client:
        let_go.clear()
        client.sendall(REQUEST % MUCH)
        assert let_go.wait(60)
        received = until_closed(client)
    assert received.startswith(b"HTTP/1.1 200") and len(received) < MUCH


def test_whoever_reads_slowly_is_left_to_it_and_is_cut_off_when_nothing_more_is_taken() -> None:
    clock, reader = HandClock(), SlowReader(waiting=100)
    limits = ConnectionLimits(stalled_s=60.0, headers_s=1e6)
    connection = bounded(limits)(
        config=Config(app, lifespan="off"),
        server_state=ServerState(),
        app_state={},
        _loop=cast(asyncio.AbstractEventLoop, clock),
    )
    connection.connection_made(reader)
    connection.pause_writing()
    for left in (90, 89, 88, 40):
        reader.waiting = left
        clock.pass_by(limits.stalled_s)
        assert not reader.aborted
    connection.resume_writing()
    clock.pass_by(10 * limits.stalled_s)
    assert not reader.aborted
    connection.pause_writing()
    clock.pass_by(limits.stalled_s)
    assert reader.aborted


def test_there_are_no_websockets(port: int) -> None:
    asked = b"GET /3 HTTP/1.1\r\nHost: door\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    with connected(port) as client:
        client.sendall(asked + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 200")
