"""A fill through a door: the questions are asked in a thread of this process, whoever answers behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Generic, TypeVar

from cache.protocols import Failure
from configs import EngineError
from orchestration.cluster.leases import Feed, ItemQueue
from orchestration.fill.engine_loop import AnyItem, FillProgress
from orchestration.outputs.console import ProgressSink
from teacher_server.http.wire import ENGINES_DIED

Answer = TypeVar("Answer")

POLL_S = 0.3
STOP_GRACE_S = 15.0
"""How long a stopped fill may take to commit what it has."""


class DoorFill(Generic[AnyItem]):
    """Has `work` make passes over a queue in a thread of its own, until all `items` are done or it has to end.

    Items are drawn as there is room in the queue: of a large fill they are many, and each an object.
    `let_go` ends what is under way at the door, so that whoever stops waits for nobody.
    """

    def __init__(
        self,
        items: Iterable[tuple[int, AnyItem]],
        *,
        token_budget: int | None,
        work: Callable[[ItemQueue[AnyItem]], None],
        let_go: Callable[[], None],
    ) -> None:
        self._queue = ItemQueue[AnyItem]([], token_budget=token_budget)
        self._feed = Feed(self._queue.add, iter(items))
        self._work, self._let_go = work, let_go
        self._ended: Exception | None = None

    def until_done(self, *, progress: ProgressSink, seconds_budget: float | None) -> FillProgress:
        """Wait for it, at most for `seconds_budget`; what was answered is committed whatever happens here.

        Raises:
            Exception: what `work` raised.
        """
        started = time.monotonic()
        self._feed.top_up()
        thread, stopped = self._begin(), False
        try:
            while True:
                thread.join(POLL_S)
                working = thread.is_alive()
                so_far = self._queue.progress()
                progress.update(so_far.rows + len(so_far.failures), tokens=so_far.response_tokens)
                if seconds_budget is not None and time.monotonic() - started > seconds_budget:
                    break
                more = self._ended is None and self._feed.top_up()
                if not (working or more):
                    break
                if not working:
                    # It found nothing to do before there was more.
                    thread = self._begin()
        finally:
            if thread.is_alive():
                stopped = True
                self._queue.stop()
                # What is under way is let go, and what was answered is committed.
                self._let_go()
                thread.join(STOP_GRACE_S)
        # That the door was let go is no error of it.
        if self._ended is not None and not (stopped and isinstance(self._ended, EngineError)):
            raise self._ended
        return self._queue.progress()

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="door-fill", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            self._work(self._queue)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is raised where the fill was asked for)
            self._ended = error


def while_engines_live(
    steps: Generator[list[tuple[int, Answer | Failure]], None, None],
) -> Generator[list[tuple[int, Answer | Failure]], None, None]:
    """What a teacher behind a door finishes, for as long as its engines live.

    A row that they died of is no row that the teacher cannot answer: it is asked again by the next run, as it would be
    of engines of one's own.

    Raises:
        EngineError: engines behind the door die.
    """
    with closing(steps):
        for finished in steps:
            dead = [said for _, said in finished if isinstance(said, Failure) and ENGINES_DIED in said.reason]
            if dead:
                yield [(place, said) for place, said in finished if said not in dead]
                raise EngineError(dead[0].reason)
            yield finished
