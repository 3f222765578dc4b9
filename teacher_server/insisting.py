"""One answer of a server over HTTP, tried again while what is in the way may pass by itself, within a budget of time.

What passes: nobody answers, the server is busy or restarts (408, 429, 502, 503, 504). A server that says how long it
wants to be left alone (`Retry-After`) is left alone for so long.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import stamina

from configs.errors import EngineError

PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses that pass by themselves."""

BUSY = 429
"""Of these that of a server that is well and has much to do: nobody has to be told of it."""

_log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 120.0


class Refused(EngineError):
    """A server does not take a request as it stands; `status` says why in the words of HTTP."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _refused, (str(self), self.status, self.retry_after_s)


def insist(
    once: Callable[[], httpx.Response], *, server: str, budget_s: float, let_go: threading.Event | None = None
) -> httpx.Response:
    """What `once` gives in the end.

    Args:
        once: Asks one time; raises `Refused` for an answer that is none.
        server: What an error calls the server.
        budget_s: Seconds for all tries together.
        let_go: Once it is set nothing is tried again.

    Raises:
        Refused: the server said no, or the budget is used up while it is busy.
        EngineError: it cannot be reached within the budget.
    """
    told = False

    def patience(error: Exception) -> bool | float:
        nonlocal told
        again = False if let_go is not None and let_go.is_set() else _patience(error)
        if again is not False and not told and getattr(error, "status", None) != BUSY:
            told = True
            _log.warning("%s is away (%s): it is asked again, for up to %g s", server, error, budget_s)
        return again

    try:
        for attempt in stamina.retry_context(
            on=patience, attempts=None, timeout=budget_s, wait_initial=0.2, wait_max=10.0
        ):
            with attempt:
                return once()
    except httpx.TransportError as error:
        why = f"({type(error).__name__}: {error}), tried for {budget_s:g} s"
        raise EngineError(f"{server} cannot be reached {why}: see whether it is up") from error
    raise AssertionError("unreachable")


def certificates(path: Path) -> ssl.SSLContext:
    """What a server's certificate is held against: those of a PEM file.

    Raises:
        EngineError: it holds none that can be read.
    """
    try:
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:  # also of what is no certificate
        raise EngineError(f"{path} holds no certificates that can be read ({error}): name a PEM file") from error


def retry_after_s(response: httpx.Response) -> float | None:
    """How long a server wants to be left alone, where it says so in seconds."""
    with contextlib.suppress(KeyError, ValueError):
        return max(float(response.headers["Retry-After"]), 0.0)
    return None


def _patience(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds."""
    if isinstance(error, Refused):
        if error.status in PASSING and error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_WAIT_S)
        return error.status in PASSING
    return isinstance(error, httpx.TransportError)


def _refused(message: str, status: int, retry_after_s: float | None) -> Refused:
    return Refused(message, status=status, retry_after_s=retry_after_s)
