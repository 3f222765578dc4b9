"""How a run is told to stop: every signal that asks for it ends it as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_cleanly_on_signals() -> None:
    """Let a container that stops a run, and a terminal that is closed, end it as cleanly as Ctrl-C does.

    SIGHUP stays ignored where it is: that is what `nohup` is for.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


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
