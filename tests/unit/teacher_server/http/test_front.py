"""A server before the door: its own words are replaced, its orders are not taken, what it holds is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from doors import Gated, OpenDoor, at_door, why, written

from teacher_server.http.front import Front

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


async def said(app: App, path: str = "/v1/generate", **request: Any) -> httpx.Response:
    transport = httpx.ASGITransport(Front(app, most_body_bytes=1000), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        return await client.post(path, **request)


def answer(status: int, body: bytes = b"words of its own") -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-request-id", b"its-own")]})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    return app


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("a secret text")


@pytest.mark.parametrize("app", [answer(200), answer(404), answer(500), answer(503), nothing, raises])
def test_what_the_door_does_not_say_is_that_it_is_away(app: App) -> None:
    response = asyncio.run(said(app, headers={"X-Request-Id": "mine"}))
    assert (response.status_code, why(response)["code"], why(response)["request_id"]) == (503, "door_away", "mine")
    assert response.headers["retry-after"] == "5" and response.headers["connection"] == "close"
    assert "its own" not in response.text and "secret" not in response.text


def test_clients_of_openai_are_told_so_in_their_form() -> None:
    error = asyncio.run(said(nothing, "/v1/chat/completions")).json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "door_away") and error["message"] == error["reason"]


def test_what_the_door_says_goes_through_whole(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        transport = httpx.ASGITransport(Front(door.app, most_body_bytes=1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            body = {"k": 2, "requests": [written(1, 5)]}
            there = await client.post("/v1/generate", json=body, headers=door.headers())
            assert there.status_code == 200 and len(there.json()["rows"]) == 1
            for response in (await client.get("/nowhere"), await client.get("/nowhere", headers=door.headers())):
                assert why(response)["code"] in ("no_token", "not_found")
            assert (await client.get("/healthz")).json() == {"state": "alive"}

    at_door(tmp_path, play, asking=Gated(open_gate=True))


def test_pages_and_orders_of_the_server_are_nobody_s() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    orders = {
        "X-Request-Timeout-Seconds": "1",
        "X-Request-Disconnect-Disabled": "?1",
        "Serve-Multiplexed-Model-Id": "a",
    }
    asyncio.run(said(app, headers={"X-Kept": "1", **orders}))
    [headers] = seen
    names = {name for name, _ in headers}
    assert b"x-kept" in names and not names & {name.lower().encode() for name in orders}
    page = asyncio.run(said(app, "/-/routes"))
    assert (page.status_code, why(page)["code"]) == (404, "not_found") and len(seen) == 1
    # Whoever watches over the server still can.
    assert asyncio.run(said(answer(200), "/-/healthz")).text == "words of its own"


def test_of_a_body_that_is_too_long_only_so_much_is_held() -> None:
    held: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            held.append(len(message["body"]))
            if not message.get("more_body", False):
                return

    async def parts(count: int) -> Any:
        for _ in range(count):
            yield b"x" * 100

    for count, most in ((10, 1000), (1000, 1100)):
        held.clear()
        asyncio.run(said(app, content=parts(count)))
        # Whoever counts sees that it was more than it may be.
        assert sum(held) == most
