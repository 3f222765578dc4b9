"""A run that is ended from outside, or by Ray's own C++ core, cannot say so itself: a small process beside it does.

The core of Ray ends its driver with `_exit` when the raylet dies, without an exception that Python would see; so do
SIGKILL and the kernel when memory runs out. The process here waits for the end of a pipe, and tidies up too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestration.own_packages import own_command

SWEEP_S = 180.0
"""On busy cores Ray's last daemon notices after more than a minute that its driver is gone."""

LINE = (
    "distill: the run was ended from outside (killed, most often because memory ran out, or its Ray cluster was): "
    "everything finished so far is kept, run the same command to go on"
)


@contextmanager
def last_words() -> Iterator[None]:
    """Have a line written to standard error if this process ends within the block without Python's knowledge."""
    beside = subprocess.Popen(
        own_command("orchestration.commands.last_words"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C and a closed terminal are for the run alone
    )
    try:
        yield
    finally:
        # Before its pipe is closed: whatever ended the block is said by the command itself.
        beside.kill()
        beside.communicate()


def main() -> None:
    """Wait for the end of the run, and speak for it."""
    sys.stdin.buffer.read()
    with suppress(OSError):
        sys.stderr.write(f"{LINE}\n")
        sys.stderr.flush()
    # Who reads what the run said need not wait for the rest.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    from orchestration.cluster.private import sweep_after_death

    sweep_after_death(at_most_s=SWEEP_S)
