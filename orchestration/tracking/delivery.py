"""Handing actions to a service that may be slow, down or gone, from a thread of its own.

Whoever puts an action never waits and never sees an error of the service. What is not delivered is tried again at
growing intervals, is kept in a file (the spool) meanwhile, and comes first when the next process begins.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from cache.disk.durable import replace_file
from configs.errors import DistillError
from configs.regular_files import parse_json, read_regular

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
SPOOL_BYTES = 2**30
"""A longer spool was not written by us."""

Action = Mapping[str, object]

logger = logging.getLogger(__name__)


class UndeliveredError(DistillError):
    """The service did not take an action but may take it later."""


class RefusedError(DistillError):
    """The service will never take this action."""


class Delivery:
    """Actions on their way, in order; `send` delivers one, in the thread of the delivery.

    `send` raises `UndeliveredError` when it has to be tried again and `RefusedError` when that would not help. It may
    be called again with an action that did arrive, and must then change nothing.
    """

    def __init__(self, send: Callable[[Action], None], *, spool: Path, service: str) -> None:
        self._send = send
        self._spool = spool
        self._service = service
        self._changed = threading.Condition()
        self._queue = deque(_read_spool(spool))
        self._thread: threading.Thread | None = None
        self._failures = 0  # in a row
        self._attempts = 0
        self._hurried = False
        self._closed = threading.Event()
        self._spool_failed = False

    def put(self, action: Action) -> None:
        """Queue an action; what it holds must be JSON, or is turned into text."""
        copied: Action = json.loads(json.dumps(action, default=str))
        with self._changed:
            self._queue.append(copied)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._deliver, name=f"{self._service} delivery", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, *, at_most_s: float) -> bool:
        """Wait until all is delivered, the service fails, or the time is over; whether all is delivered."""
        deadline = time.monotonic() + at_most_s
        with self._changed:
            if self._thread is None:
                return not self._queue
            begun = self._attempts
            self._hurried = True
            self._changed.notify_all()
            while self._queue and not (self._failures and self._attempts > begun):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._hurried = False
            return not self._queue

    def close(self, *, at_most_s: float) -> None:
        """Deliver what can be in this time, and keep the rest for the next process. Never raises for the service."""
        try:
            self.drain(at_most_s=at_most_s)
        finally:
            with self._changed:
                self._closed.set()
                self._keep()
                self._changed.notify_all()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed.is_set() or self._queue)
                if self._closed.is_set():
                    return
                action = self._queue[0]
            delivered = self._try(action)
            with self._changed:
                if self._closed.is_set():  # The action is in the spool too, where doing it twice does no harm.
                    return
                self._attempts += 1
                if delivered:
                    self._failures = 0
                    self._queue.popleft()
                    if not self._queue:
                        self._forget_spool()
                else:
                    self._failures += 1
                    self._keep()
                self._changed.notify_all()
                if not delivered:
                    self._pause()

    def _try(self, action: Action) -> bool:
        """Whether the action is done with: delivered, or refused for good, which is said."""
        what = f"{action.get('do')} of {action.get('run')}"
        try:
            self._send(action)
        except UndeliveredError as error:
            # Once on the console, then in the log alone: it is tried again and again.
            level = logging.INFO if self._failures else logging.WARNING
            logger.log(level, "%s did not take %s (%s); kept for later", self._service, what, error)
            return False
        except RefusedError as error:
            logger.warning("%s refused %s: %s", self._service, what, error)
        except Exception:
            # A defect, and no reason to lose the run, or everything that waits behind this action.
            logger.exception("%s: %s failed and is left out", self._service, what)
        return True

    def _pause(self) -> None:
        seconds = min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S)
        # Who waits in `drain` has seen this failure; the next one who comes hurries the next attempt.
        self._hurried = False
        self._changed.wait_for(lambda: self._closed.is_set() or self._hurried, timeout=seconds)

    def _keep(self) -> None:
        """Write what waits to the spool; a disk that is full must not hide the error that is worth reading."""
        if not self._queue:
            return
        try:
            replace_file(self._spool, "".join(json.dumps(kept) + "\n" for kept in self._queue).encode())
        except OSError as error:
            level = logging.INFO if self._spool_failed else logging.WARNING
            logger.log(level, "%s: cannot be kept for later (%s)", self._spool, error.strerror or error)
            self._spool_failed = True

    def _forget_spool(self) -> None:
        try:
            self._spool.unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s: cannot be removed (%s); what it holds is sent again, to no effect", self._spool, error)


def _read_spool(path: Path) -> list[Action]:
    """What an earlier process left; lines that a full disk or somebody else cut are left out."""
    try:
        lines = read_regular(path, at_most=SPOOL_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, DistillError) as error:
        logger.warning("%s: cannot be read (%s); what it holds is not sent", path, error)
        return []
    kept: list[Action] = []
    for line in lines:
        try:
            action = parse_json(line, origin=str(path))
        except DistillError:
            action = None
        if isinstance(action, dict):
            kept.append(action)
    if len(kept) < len(lines):
        logger.warning("%s: %d of %d lines cannot be read and are left out", path, len(lines) - len(kept), len(lines))
    return kept
