"""Requests to stop: a signal, or a function of the caller.

A worker group is asked to stop in two ways. Its driver leaves a file that every process looks for (`should_stop`), or
a process gets SIGTERM, as when its container is stopped. Either way it writes a checkpoint and returns.
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
        """The answer is the same on every process, so all of them have to ask together."""
        self._asked = self._group.any(self._asked or self._should_stop())
        return self._asked


@contextmanager
def sigterm_asks(should_stop: ShouldStop) -> Iterator[ShouldStop]:
    """`should_stop`, which also answers yes after a SIGTERM that came within the block.

    Only the main thread of a process may set signal handlers. A worker group under Ray trains in another thread, and
    its driver asks it to stop.
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
