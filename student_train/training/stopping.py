"""Requests to stop: a signal, or a question that the caller answers.

A worker group may be asked in two ways. Its driver leaves a note that every process looks for (`should_stop`), or
somebody ends the process itself: a container that is stopped sends SIGTERM. Both have the same end, a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from student_train.worker_group import WorkerGroup

ShouldStop = Callable[[], bool]


class StopRequest:
    """Whether any process of the worker group was asked to stop. Once it was, the answer stays yes."""

    def __init__(self, should_stop: ShouldStop, *, group: WorkerGroup) -> None:
        self._should_stop, self._group = should_stop, group
        self._asked = False

    def asked(self) -> bool:
        """The same answer on every process, so all of them have to ask together."""
        self._asked = self._group.any(self._asked or self._should_stop())
        return self._asked


@contextmanager
def sigterm_asks(should_stop: ShouldStop) -> Iterator[ShouldStop]:
    """`should_stop`, which also says yes after a SIGTERM as long as the block lasts.

    Only the main thread of a process may set handlers. A worker group under Ray trains in another one, and is asked
    by its driver.
    """
    if threading.current_thread() is not threading.main_thread():
        yield should_stop
        return
    signalled = threading.Event()
    former = signal.signal(signal.SIGTERM, lambda *_: signalled.set())
    try:
        yield lambda: signalled.is_set() or should_stop()
    finally:
        signal.signal(signal.SIGTERM, former)
