"""A checkpoint on its way to the disk: work in a thread beside the training; its error is kept until asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable

StopWaiting = threading.Event
"""Set when whoever waits for other processes is to give up: the training has ended with an error."""


class Commit:
    """One thread of one process, from its start to its end."""

    def __init__(self, work: Callable[[StopWaiting], None]) -> None:
        self.error: BaseException | None = None
        self._work, self._given_up = work, StopWaiting()
        # A daemon: where the process ends without `wait` or `abandon`, it is as if it had been killed.
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for its end, at most so many seconds."""
        self._thread.join(seconds)

    def abandon(self) -> None:
        """End it without waiting for other processes: what is not complete by then is left as after a kill."""
        self._given_up.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work(self._given_up)
        except BaseException as error:  # noqa: BLE001 - the training raises it, where somebody hears it
            self.error = error
