"""Connections that are idle, slow, too many or not HTTP, against a real server on the loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from open_app import listening
from raw_http import connected, refused, until_closed

from teacher_server.http.bounds import ConnectionLimits, bounded

LIMITS = ConnectionLimits(headers_s=0.5, stalled_s=0.5, most_connections=4, most_header_bytes=300_000)
REQUEST = b"GET /%d HTTP/1.1\r\nHost: door\r\n\r\n"
MUCH = 64 * 2**20
"""More than the kernel holds between the two."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with as many bytes as the path says."""
    body = bytes(int(scope["path"][1:]))
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(app, lifespan="off", http=bounded(LIMITS), timeout_keep_alive=1) as url:
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
        client.sendall(b"GET /0 HTTP/1.1\r\nHost: door\r\n")
        for _ in range(20):
            client.sendall(b"X-Much: " + b"x" * 20_000 + b"\r\n")
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
        client.sendall(REQUEST % MUCH)
        time.sleep(1.5)
        received = until_closed(client)
    assert received.startswith(b"HTTP/1.1 200") and len(received) < MUCH


def test_whoever_reads_slowly_gets_all_of_it(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n" % MUCH)
        received = 0
        for _ in range(6):
            time.sleep(0.3)
            received += len(client.recv(8 * 2**20, socket.MSG_WAITALL))
        received += len(until_closed(client))
    assert received > MUCH


def test_there_are_no_websockets(port: int) -> None:
    asked = b"GET /3 HTTP/1.1\r\nHost: door\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    with connected(port) as client:
        client.sendall(asked + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 200")
