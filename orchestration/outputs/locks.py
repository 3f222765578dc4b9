"""Locks of the kernel on open files and directories (`flock`): whoever holds one frees it by closing it, or by dying.

Some file systems have no locks. Whoever must be alone has to know that (`take`); whoever only tidies up after killed
runs, or marks itself as alive for others that do, goes on without (`take_if_possible`).
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
