"""Processes that write to a store, for tests that kill them or run several at once.

`python store_process.py <root> <first> <count> <per commit> <kind>` commits what is missing of the numbers `first`,
`first` + 1, ... of a kind of rows (`store_kinds`), and prints how many it wrote.

`python store_process.py serve` reads those five words from each line of its input and lets a fork of itself do the
work, so that a test can kill hundreds of writers without waiting for hundreds of starts. It prints `pid <n>`; the fork
prints `open` when it has opened the cache and `committed <number> ...` after each commit has returned. The line that
follows makes the server wait for the fork's end and print `ended <status>`; until then its pid is not used again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from store_builders import open_cache
from store_kinds import KINDS, Kind


def fill(
    root: Path,
    kind: Kind,
    *,
    first: int,
    count: int,
    per_commit: int,
    opened: Callable[[], None] = lambda: None,
    committed: Callable[[Sequence[int]], None] = lambda _: None,
) -> int:
    """Write what is missing and return how many rows that were."""
    cache = open_cache(root)
    opened()
    wanted = kind.missing(cache, range(first, first + count))
    pending: list[int] = []
    with kind.writer(cache) as writer:
        for number in wanted:
            kind.add(writer, number)
            pending.append(number)
            if writer.pending_rows >= per_commit:
                writer.commit()
                committed(pending)
                pending = []
    return len(wanted)


def serve() -> None:
    """See above."""
    # A fork has one thread; locks that others held would stay locked in it.
    assert len(os.listdir("/proc/self/task")) == 1
    while words := sys.stdin.readline().split():
        pid = os.fork()
        if pid == 0:
            root, first, count, per_commit = words[0], *map(int, words[1:4])
            fill(
                Path(root),
                KINDS[words[4]],
                first=first,
                count=count,
                per_commit=per_commit,
                opened=lambda: _print("open"),
                committed=lambda numbers: _print(f"committed {' '.join(map(str, numbers))}"),
            )
            os._exit(0)
        _print(f"pid {pid}")
        sys.stdin.readline()
        _print(f"ended {os.waitpid(pid, 0)[1]}")


def _print(line: str) -> None:
    # One write of less than a page, so that lines of two processes do not mix.
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        root, first, count, per_commit = sys.argv[1], *map(int, sys.argv[2:5])
        wrote = fill(Path(root), KINDS[sys.argv[5]], first=first, count=count, per_commit=per_commit)
        sys.stdout.write(f"{wrote}\n")
