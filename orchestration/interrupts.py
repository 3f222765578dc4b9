"""Interrupts that wait until a piece of work is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Deliver an interrupt that comes while the block runs when it has ended.

    Only the main thread gets signals; in any other the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    former = {number: signal.signal(number, lambda got, _: arrived.append(got)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in former.items():
            # None is a handler that was not set from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for late in arrived[:1]:
            signal.raise_signal(late)
