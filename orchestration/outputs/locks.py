"""Locks of the kernel on open files and directories (`flock`): whoever holds one frees it by closing it, or by dying.

What it means that a disk has no locks differs, and with it the function to call. Who must be alone has to know
(`take`); who would only tidy up after the dead, or let himself be told from them, does without (`take_if_possible`).
"""

from __future__ import annotations

import fcntl


def take(handle: int, *, wait: bool) -> bool:
    """Whether the lock of an open file is ours now; with `wait` it always is in the end.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_if_possible(handle: int) -> bool:
    """Whether the lock of an open file is ours now: not if somebody holds it, and not where there are no locks."""
    try:
        return take(handle, wait=False)
    except OSError:
        return False
