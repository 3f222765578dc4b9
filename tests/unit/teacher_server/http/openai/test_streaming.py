"""Answers as server-sent events: waited for with signs of life, and told what went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from configs import CacheError
from teacher_server.http.exchange import CLIENT_GONE, Exchange
from teacher_server.http.openai.streaming import DONE, WAITING, EventStream, Streamed
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import DoorLimits

Message = dict[str, Any]


def quick(**limits: float) -> DoorLimits:
    return DoorLimits(**{"keep_alive_s": 0.02, "request_s": 30.0} | limits)  # type: ignore[arg-type]


def parts(found: str) -> list[str]:
    return [json.dumps(word) for word in found.split()]


class Played:
    """A stream, and all that a server was told to send of it."""

    def __init__(self, limits: DoorLimits) -> None:
        self.exchange = Exchange("the-request", "POST")
        self.limits = limits
        self.sent: list[Message] = []
        self.gone = asyncio.Event()

    async def open(self, asking: Coroutine[Any, Any, str]) -> EventStream:
        self.task = asyncio.create_task(asking)
        return await Streamed(self.task, parts, exchange=self.exchange, limits=self.limits).response()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def play(self, response: EventStream) -> None:
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, self.receive, self.send)

    @property
    def events(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message.get("body")]

    @property
    def error(self) -> dict[str, Any]:
        """The error that the last event says."""
        error: dict[str, Any] = json.loads(self.events[-1].removeprefix(b"data: "))["error"]
        return error


def run(play: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await play

    asyncio.run(bounded())


def test_an_answer_that_is_there_is_sent_at_once() -> None:
    async def play() -> None:
        played = Played(quick(keep_alive_s=20.0))

        async def there() -> str:
            return "a b"

        response = await played.open(there())
        await played.play(response)
        assert played.events == [b'data: "a"\n\n', b'data: "b"\n\n', DONE]
        headers = dict(played.sent[0]["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream") and headers[b"x-accel-buffering"] == b"no"
        assert played.sent[-1]["more_body"] is False

    run(play())


def test_who_waits_is_sent_signs_of_life_and_then_the_answer() -> None:
    async def play() -> None:
        played, gate = Played(quick()), asyncio.Event()

        async def late() -> str:
            await gate.wait()
            return "a"

        response = await played.open(late())
        sending = asyncio.create_task(played.play(response))
        while len(played.events) < 3:
            await asyncio.sleep(0.005)
        assert set(played.events) == {WAITING}
        gate.set()
        await sending
        assert played.events[-2:] == [b'data: "a"\n\n', DONE]

    run(play())


def test_what_is_refused_before_anything_is_sent_keeps_its_status() -> None:
    async def play() -> None:
        async def refuse() -> str:
            raise Refusal(429, "busy", "too much")

        with pytest.raises(Refusal, match="too much"):
            await Played(quick(keep_alive_s=20.0)).open(refuse())

    run(play())


@pytest.mark.parametrize(
    ("error", "code", "status", "kind"),
    [
        (Refusal(422, "not_answered", "prompt: no", param="prompt"), "not_answered", 422, "invalid_request_error"),
        (CacheError("/secret"), "cache_unavailable", 503, "server_error"),
        (RuntimeError("secret"), "internal", 500, "server_error"),
    ],
)
def test_what_goes_wrong_later_is_an_event(error: Exception, code: str, status: int, kind: str) -> None:
    async def play() -> None:
        played, gate = Played(quick()), asyncio.Event()

        async def fail() -> str:
            await gate.wait()
            raise error

        response = await played.open(fail())
        sending = asyncio.create_task(played.play(response))
        while not played.events:
            await asyncio.sleep(0.005)
        gate.set()
        if isinstance(error, Refusal):
            await sending
            assert played.sent[-1]["more_body"] is False
        else:
            # It goes on to where defects are written down.
            with pytest.raises(type(error)):
                await sending
        assert (played.error["code"], played.error["status"], played.error["type"]) == (code, status, kind)
        assert played.error["request_id"] == "the-request" and "secret" not in str(played.error)
        assert DONE not in played.events and played.exchange.status == status

    run(play())


def test_who_waits_too_long_is_told_so() -> None:
    async def play() -> None:
        played = Played(quick(request_s=0.1))
        response = await played.open(asyncio.sleep(3600, "a"))
        await played.play(response)
        assert (played.error["code"], played.exchange.status) == ("too_slow", 504)
        assert played.task.cancelling()

    run(play())


def test_where_the_client_goes_away_nobody_waits_any_more() -> None:
    async def play() -> None:
        played = Played(quick())
        response = await played.open(asyncio.sleep(3600, "a"))
        sending = asyncio.create_task(played.play(response))
        while not played.events:
            await asyncio.sleep(0.005)
        played.gone.set()
        await sending
        assert played.exchange.status == CLIENT_GONE and played.task.cancelling()
        assert DONE not in played.events

    run(play())


def test_one_that_is_ended_before_it_begins_waits_no_more() -> None:
    async def play() -> None:
        played = Played(quick(keep_alive_s=20.0))
        opening = asyncio.create_task(played.open(asyncio.sleep(3600, "a")))
        await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert played.task.cancelling()

    run(play())
