"""One engine that answers many at once: it is stepped in a thread of its own, and takes in what has come meanwhile.

Whoever asks awaits an answer of their own; the engine sees one stream of requests and batches them as it always does.
It waits without a step where there is nothing to do.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from configs.errors import DistillError, EngineError
from teacher_server.requests import Asked, StepwiseSource

Reply = Future[TeacherRecord | Failure]


class SteppedEngine:
    """An engine behind a queue. It takes the first request at once, and ends with `close` or of an error.

    Attributes:
        died: What it died of, after which every request is refused; None as long as it lives.
    """

    def __init__(self, engine: StepwiseSource) -> None:
        self.died: EngineError | None = None
        self._engine = engine
        self._asked: queue.SimpleQueue[tuple[Asked, Reply] | None] = queue.SimpleQueue()
        self._flying: dict[int, Reply] = {}
        # Guards `died` against requests that come while the thread ends: none of them may be left without an answer.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        """The answer to one request with `k` log-probabilities a position.

        Raises:
            EngineError: the engine died, before or meanwhile.
        """
        return await asyncio.wrap_future(self.submit(request, k=k))

    def submit(self, request: Request, *, k: int) -> Reply:
        """As `answer`, for whoever waits in a thread. A reply that is cancelled before its turn costs nothing."""
        reply: Reply = Future()
        with self._lock:
            if self.died is not None:
                reply.set_exception(self.died)
            else:
                self._asked.put((Asked(request, k), reply))
        return reply

    def close(self) -> None:
        """Take nothing more, answer what was taken, and end the thread."""
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        died = EngineError("the engine was closed")
        try:
            with closing(self._engine.work(self._draw())) as steps:
                for finished in steps:
                    for place, outcome in finished:
                        self._flying.pop(place).set_result(outcome)
        except DistillError as error:
            died = error if isinstance(error, EngineError) else EngineError(str(error))
        # A defect must not leave those waiting who asked: they are told, and the engine is replaced.
        except Exception as error:  # noqa: BLE001
            died = EngineError(f"the engine ended of {type(error).__name__}: {error}")
        finally:
            self._end(died)

    def _draw(self) -> Iterator[Asked | None]:
        """What has come, and None where nothing has while the engine has something to do."""
        place = 0
        while True:
            try:
                # Only an engine with nothing under way may be kept waiting.
                drawn = self._asked.get(block=not self._flying)
            except queue.Empty:
                yield None
                continue
            if drawn is None:
                return
            asked, reply = drawn
            if not reply.set_running_or_notify_cancel():
                continue
            self._flying[place] = reply
            place += 1
            yield asked

    def _end(self, died: EngineError) -> None:
        with self._lock:
            self.died = died
            left = list(self._flying.values())
            while not self._asked.empty():
                drawn = self._asked.get()
                if drawn is not None and drawn[1].set_running_or_notify_cancel():
                    left.append(drawn[1])
        self._flying.clear()
        for reply in left:
            reply.set_exception(died)
