"""Requests byte by byte, and what comes back for them until the server ends the connection."""

from __future__ import annotations

import json
import socket
from typing import Any


def connected(port: int) -> socket.socket:
    """A connection to a server on the loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def head(path: str, *, token: str = "", length: int | None = None, more: str = "") -> bytes:
    """The headers of a request with a body of JSON, which is sent in chunks unless its length is told."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    said = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{size}\r\n"
    return f"{said}{authorization}{more}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def until_closed(client: socket.socket, *, first: bytes = b"") -> bytes:
    """All that is sent until the server ends the connection, behind what was received already."""
    received = bytearray(first)
    try:
        while piece := client.recv(2**20):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


def refused(received: bytes) -> dict[str, Any]:
    """What an answer that is none says, checked for its form."""
    headers, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in headers.lower() and b"content-type: application/json" in headers.lower(), received
    if b"transfer-encoding: chunked" in headers.lower():
        size, _, body = body.partition(b"\r\n")
        body = body[: int(size, 16)]
    error = json.loads(body)["error"]
    assert {"status", "code", "reason", "request_id"} <= set(error)
    assert headers.startswith(b"HTTP/1.1 %d " % error["status"]) and error["request_id"].encode() in headers
    return dict(error)
