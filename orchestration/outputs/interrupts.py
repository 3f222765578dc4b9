"""How a run is stopped from outside: every signal that asks for it ends it as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within, a container that stops a run, and a terminal that is closed, end it as cleanly as Ctrl-C does.

    SIGHUP stays ignored where it is: that is what `nohup` is for.
    """
    stopping = [number for number in (signal.SIGTERM, signal.SIGHUP) if not _is_ignored_hangup(number)]
    before = {number: signal.signal(number, signal.default_int_handler) for number in stopping}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def hangups_blocked() -> Iterator[None]:
    """Processes that are started within never hear of a hang-up: who started them ends them when all is written.

    The kernel sends SIGHUP to all that a closed terminal had in its foreground. This process gets one that comes
    meanwhile at the end, at the latest.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
