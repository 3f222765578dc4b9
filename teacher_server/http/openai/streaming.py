"""Answers as server-sent events.

The teacher's desk answers whole rows, because equal questions are asked once and meet there: nobody is told half an
answer that somebody else waits for. So a stream waits until the answer is whole, and sends it in parts then; one that
the cache has is there at once. While it waits it sends a comment now and then, so that no proxy takes it for dead.

What goes wrong before the first byte has the status of its error, as without a stream; behind it an event says it
(`data: {"error": ...}`), and no `[DONE]` follows. The request counts as inside the door to its last byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Send

from configs.errors import CacheError
from teacher_server.http.exchange import CLIENT_GONE, Exchange
from teacher_server.http.refusals import Refusal, as_refusal, error_json
from teacher_server.http.served import DoorLimits

MEDIA_TYPE = "text/event-stream"
WAITING = b": waiting\n\n"
DONE = b"data: [DONE]\n\n"

Found = TypeVar("Found")


class EventStream(StreamingResponse):
    """Events that are ended where the client goes away, and `asking`, which they come from, with them."""

    def __init__(self, events: AsyncGenerator[bytes, None], *, asking: asyncio.Task[Any]) -> None:
        # nginx would hold back what it could send.
        super().__init__(events, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._events, self._asking = events, asking

    async def stream_response(self, send: Send) -> None:
        """Send them."""
        try:
            async with aclosing(self._events):
                await super().stream_response(send)
        finally:
            # Also where the client was gone before the first event. What the teacher was asked goes on.
            self._asking.cancel()


class Streamed(Generic[Found]):
    """An answer that is waited for and then sent in parts.

    Args:
        asking: What is waited for; it is cancelled where nobody waits for it any more.
        parts: The JSON of each part of it. Called in a thread.
        exchange: Learns how it ended.
        limits: How long it may take, and how often a sign of life is sent.
    """

    def __init__(
        self,
        asking: asyncio.Task[Found],
        parts: Callable[[Found], Iterable[str]],
        *,
        exchange: Exchange,
        limits: DoorLimits,
    ) -> None:
        self._asking, self._parts = asking, parts
        self._exchange, self._limits = exchange, limits

    async def response(self) -> EventStream:
        """The answer, begun as soon as it is there or has to give a sign of life.

        Raises:
            Refusal: it was refused by then, or by one of the errors that become one.
        """
        found = None
        try:
            await asyncio.wait({self._asking}, timeout=self._limits.keep_alive_s)
            if self._asking.done():
                found = await self._events_of(self._asking.result())
        except BaseException:
            self._asking.cancel()
            raise
        return EventStream(self._sent(found), asking=self._asking)

    async def _sent(self, found: list[bytes] | None) -> AsyncGenerator[bytes, None]:
        try:
            if found is None:
                yield WAITING
                while not await self._waited():
                    yield WAITING
                found = await self._events_of(self._asking.result())
            for event in found:
                yield event
            yield DONE
        except (asyncio.CancelledError, GeneratorExit):
            self._exchange.status = CLIENT_GONE
            raise
        # The status of the answer was sent long ago: all that can still be done is to say it.
        except Exception as error:
            known = as_refusal(error)
            said = known or Refusal(500, "internal", "a defect of the door: tell its operator the request id")
            self._exchange.status = said.status
            yield _event(error_json(said, request_id=self._exchange.request_id, openai=True))
            # The outermost layer writes these down; who only hears no is told cleanly.
            if known is None or isinstance(error, CacheError):
                raise

    async def _waited(self) -> bool:
        """Wait for a while; whether the answer is there.

        Raises:
            Refusal: 504, it took too long.
        """
        seconds = self._limits.request_s
        left = self._exchange.began + seconds - time.monotonic()
        if left <= 0:
            reason = f"no answer within {seconds:g} s; what the teacher was asked goes on: ask again"
            raise Refusal(504, "too_slow", reason)
        await asyncio.wait({self._asking}, timeout=min(self._limits.keep_alive_s, left))
        return self._asking.done()

    async def _events_of(self, found: Found) -> list[bytes]:
        return await asyncio.to_thread(lambda: [_event(part) for part in self._parts(found)])


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
