"""What every request passes: with a real server on the loopback for what only sockets can do."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doors import Gated, OpenDoor, at_door, make_door, why, written
from open_app import listening

from configs import CacheError
from teacher_server.http.exchange import ACCESS_LOG, CLIENT_GONE
from teacher_server.http.layers import Admission
from teacher_server.http.refusals import Refusal
from teacher_server.http.sequence_desk import SequenceDesk
from teacher_server.http.served import DoorLimits

LIMITS = DoorLimits(most_body_bytes=20_000, body_s=0.4, request_s=5.0)
SECRET = "a secret text"


def access(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS_LOG]


def test_every_answer_has_an_id_and_is_kept_by_nobody_on_the_way(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        given = await door.client.get("/healthz", headers={"X-Request-Id": "mine-1"})
        assert given.headers["x-request-id"] == "mine-1"
        assert given.headers["cache-control"] == "no-store" and given.headers["x-content-type-options"] == "nosniff"
        strange = await door.client.get("/healthz", headers={"X-Request-Id": "a b"})
        assert len(strange.headers["x-request-id"]) == 32
        for response in (await door.client.get("/v1/teachers"), await door.told("/nowhere")):
            assert why(response)["request_id"] == response.headers["x-request-id"]

    at_door(tmp_path, play)


def test_another_host_is_told_nothing(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        evil = door.headers("admin", Host="evil.example")
        for path in ("/v1/teachers", "/metrics", "/openapi.json", "/nowhere"):
            response = await door.client.get(path, headers=evil)
            assert (response.status_code, why(response)["code"]) == (421, "misdirected")
        # Whoever watches over a process knows its address alone.
        assert (await door.client.get("/healthz", headers=evil)).status_code == 200

    at_door(tmp_path, play)


def test_a_door_below_a_path_knows_its_own(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        transport = httpx.ASGITransport(door.app, root_path="/below")
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            assert (await client.get("/below/healthz")).status_code == 200
            assert (await client.get("/below/v1/teachers")).status_code == 401
            assert (await client.get("/below/v1/teachers", headers=door.headers())).status_code == 200

    at_door(tmp_path, play)


def test_no_page_of_another_origin_may_read_an_answer(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        origin = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        for response in (
            await door.client.options("/v1/score", headers=origin),
            await door.client.options("/v1/score", headers=door.headers("admin", **origin)),
            await door.client.get("/v1/teachers", headers=door.headers("admin", **origin)),
        ):
            assert not [name for name in response.headers if name.startswith("access-control")]

    at_door(tmp_path, play)


def test_strangers_are_sent_away_before_their_body_is_taken(tmp_path: Path) -> None:
    taken = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            taken.append(1)
            yield b"x" * 1000

    async def play(door: OpenDoor) -> None:
        response = await door.client.post("/v1/score", content=body())
        assert response.status_code == 401 and response.headers["connection"] == "close" and not taken

    at_door(tmp_path, play)


@pytest.mark.parametrize("told", ["2²", "-1", "1" * 19, "many"])
def test_a_length_that_is_none_is_refused(tmp_path: Path, told: str) -> None:
    async def play(door: OpenDoor) -> None:
        headers = [*door.headers().items(), ("Content-Length", told.encode("latin-1"))]
        response = await door.client.post("/v1/score", content=b"", headers=headers)  # type: ignore[arg-type]
        assert response.status_code == 400 and "Content-Length" in why(response)["reason"]

    at_door(tmp_path, play)


def test_a_body_of_another_kind_is_refused(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp"):
            response = await door.client.post(
                "/v1/score", content=b"{}", headers=door.headers("ask", **{"Content-Type": kind})
            )
            assert (response.status_code, why(response)["code"]) == (415, "not_json")
        typed = door.headers("ask", **{"Content-Type": "Application/JSON; charset=utf-8"})
        assert (await door.client.post("/v1/score", content=b"{}", headers=typed)).status_code == 422

    at_door(tmp_path, play)


def test_a_body_is_as_long_as_it_may_be_with_and_without_its_length_told(tmp_path: Path) -> None:
    async def parts(size: int) -> AsyncIterator[bytes]:
        for begin in range(0, size, 1000):
            yield b" " * min(1000, size - begin)

    async def play(door: OpenDoor) -> None:
        headers = door.headers("ask", **{"Content-Type": "application/json"})
        for size, status in ((20_000, 400), (20_001, 413)):
            for content in (b" " * size, parts(size)):
                response = await door.client.post("/v1/score", content=content, headers=headers)
                assert response.status_code == status
        assert why(response)["reason"] == "the body has more than 20,000 bytes: ask in several requests"

    at_door(tmp_path, play, limits=LIMITS)


def test_a_request_that_takes_too_long_ends_and_what_it_asked_goes_on(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        body = {"k": 0, "requests": [written(1, 5)]}
        slow = await door.ask("/v1/generate", body)
        assert (slow.status_code, why(slow)["code"]) == (504, "too_slow") and slow.headers["retry-after"] == "1"
        gated.gate.set()
        await door.desk.close()
        again = await door.ask("/v1/generate", body)
        assert again.status_code == 200 and again.json()["rows"][0]["cached"] and len(gated.asked) == 1

    at_door(tmp_path, play, asking=gated, limits=DoorLimits(request_s=1.0))


def test_a_timeout_of_something_else_is_no_slow_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(door: OpenDoor) -> None:
        monkeypatch.setattr(SequenceDesk, "held", failing(TimeoutError("a disk")))
        response = await door.ask("/v1/generate", {"k": 0, "requests": [written(1, 5)]})
        assert (response.status_code, why(response)["code"]) == (500, "internal")

    at_door(tmp_path, play)


def failing(error: Exception) -> Callable[..., Any]:
    async def fails(*_: object, **__: object) -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    ("error", "status", "code", "logged"),
    [
        (RuntimeError(SECRET), 500, "internal", "a defect: RuntimeError at fails ("),
        (CacheError("/place: no space left"), 503, "cache_unavailable", "/place: no space left"),
    ],
)
def test_a_defect_costs_one_request_and_tells_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    code: str,
    logged: str,
) -> None:
    async def play(door: OpenDoor) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(SequenceDesk, "held", failing(error))
            response = await door.ask("/v1/generate", {"k": 0, "requests": [written(1, 5)]})
        said = why(response)
        assert (said["status"], said["code"]) == (status, code)
        assert "place" not in response.text and SECRET not in response.text
        assert logged in caplog.text and said["request_id"] in caplog.text and SECRET not in caplog.text
        assert (await door.ask("/v1/generate", {"k": 0, "requests": [written(1, 5)]})).status_code == 200

    at_door(tmp_path, play)


def test_whoever_is_inside_is_waited_for_and_nobody_else_comes_in() -> None:
    async def run() -> None:
        admission = Admission()
        with admission.inside():
            closing = asyncio.create_task(admission.close())
            await asyncio.sleep(0)
            with pytest.raises(Refusal, match="is being closed") as refused, admission.inside():
                raise AssertionError("let in")
            assert refused.value.status == 503 and refused.value.headers["Retry-After"] == "10"
            assert not closing.done()
        await asyncio.wait_for(closing, 1)

    asyncio.run(run())


def test_what_is_no_request_passes(tmp_path: Path) -> None:
    """The lifespan of an app goes through every layer, and its end drains the door."""
    door = make_door(tmp_path, Gated(open_gate=True))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(door.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert door.app.state.door.admission.closed


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenDoor, int]]:
    """A door on a port of the loopback."""
    door = make_door(tmp_path_factory.mktemp("door"), Gated(open_gate=True), limits=LIMITS)
    with listening(door.app, lifespan="on") as url:
        yield door, int(url.rpartition(":")[2])


def exchanged(
    served: tuple[OpenDoor, int], *parts: bytes, headers: str = "", half_closed: bool = False, pause_s: float = 0.0
) -> bytes:
    """All that comes back for a request whose body is sent piece by piece, until the server closes the connection."""
    door, port = served
    head = (
        f"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: {door.headers('ask')['Authorization']}\r\nX-Request-Id: raw\r\n{headers}\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head.encode())
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
            if half_closed:
                client.shutdown(socket.SHUT_WR)
        # The server closed the connection: what it said before is what matters.
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while piece := client.recv(65_536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def refused(received: bytes) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return dict(json.loads(body)["error"])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_real_server_answers_and_ends_with_the_door(served: tuple[OpenDoor, int]) -> None:
    body = json.dumps({"k": 0, "requests": [written(1, 5)]}).encode()
    headers = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
    received = exchanged(served, chunk(body[:9]), chunk(body[9:]), b"0\r\n\r\n", headers=headers)
    assert received.startswith(b"HTTP/1.1 200") and b"x-request-id: raw" in received.lower()


def test_a_body_that_is_longer_than_it_may_be_is_not_read_to_its_end(served: tuple[OpenDoor, int]) -> None:
    told = refused(exchanged(served, headers="Content-Length: 20001\r\n"))
    assert (told["status"], told["code"]) == (413, "body_too_large")
    untold = refused(exchanged(served, *[chunk(b" " * 1000)] * 100, headers="Transfer-Encoding: chunked\r\n"))
    assert (untold["status"], untold["code"]) == (413, "body_too_large")


def test_a_body_that_stalls_or_drips_is_given_up(served: tuple[OpenDoor, int]) -> None:
    stalled = refused(exchanged(served, b'{"k": 0', headers="Content-Length: 100\r\n"))
    assert (stalled["status"], stalled["code"], stalled["request_id"]) == (408, "body_too_slow", "raw")
    dripped = refused(exchanged(served, *[chunk(b" ")] * 12, headers="Transfer-Encoding: chunked\r\n", pause_s=0.1))
    assert dripped["status"] == 408


def test_a_client_that_goes_away_in_its_body_leaves_a_line_alone(
    served: tuple[OpenDoor, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert exchanged(served, b'{"k": 0', headers="Content-Length: 100\r\n", half_closed=True) == b""
        for _ in range(100):
            if access(caplog):
                break
            time.sleep(0.02)
    [line] = access(caplog)
    assert (line["status"], line["request_id"], line["route"]) == (CLIENT_GONE, "raw", "")
    assert "Traceback" not in caplog.text and not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert exchanged(served, b"{}", headers="Content-Length: 2\r\nConnection: close\r\n").startswith(b"HTTP/1.1 422")
