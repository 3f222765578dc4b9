"""Processes that write to a store, for tests that kill them or run several at once.

`python store_process.py <root> <first> <count> <per commit>` commits answers to prompts `first`, `first` + 1, ... that
are still missing, and prints how many it wrote.

`python store_process.py serve` reads those four words from each line of its input and lets a fork of itself do the
work, so that a test can kill hundreds of writers without waiting for hundreds of starts. It prints `pid <n>`; the fork
prints `open` when it has opened the cache and `committed <number> ...` after each commit has returned. The line that
follows makes the server wait for the fork's end and print `ended <status>`; until then its pid is not used again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from store_builders import VOCAB, answer, make_request, open_cache

from cache.keys import generation_key
from cache.records import GenerateRequest

DIGITS = VOCAB - 10


def numbered_request(number: int) -> GenerateRequest:
    """The request of this number, which stands in the prompt."""
    return make_request([3, *(5 + number // DIGITS**place % DIGITS for place in (2, 1, 0))])


def numbered_requests(first: int, count: int) -> list[GenerateRequest]:
    """The requests that a process is started for."""
    return [numbered_request(number) for number in range(first, first + count)]


def fill(
    root: Path,
    *,
    first: int,
    count: int,
    per_commit: int,
    opened: Callable[[], None] = lambda: None,
    committed: Callable[[Sequence[int]], None] = lambda _: None,
) -> int:
    """Write what is missing and return how many records that were."""
    cache = open_cache(root)
    opened()
    requests = numbered_requests(first, count)
    wanted = cache.missing(requests, k=8).generate
    pending: list[int] = []
    with cache.writer(vocab=VOCAB) as writer:
        for position in wanted:
            record, request = answer(requests[position])
            writer.add(record, generation_key=generation_key(cache.identity.digest(), request), max_new_tokens=8)
            pending.append(first + position)
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
            root, first, count, per_commit = words[0], *map(int, words[1:])
            fill(
                Path(root),
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
        root, first, count, per_commit = sys.argv[1], *map(int, sys.argv[2:])
        sys.stdout.write(f"{fill(Path(root), first=first, count=count, per_commit=per_commit)}\n")
