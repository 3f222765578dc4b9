"""Processes that write to a store, for tests that kill them or run several at once.

`python store_process.py <root> <first> <count> <per commit>` commits answers to prompts `first`, `first` + 1, ... that
are still missing, and prints how many it wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from store_builders import VOCAB, answer, make_request, open_cache

from cache.keys import generation_key
from cache.records import GenerateRequest


def numbered_requests(first: int, count: int) -> list[GenerateRequest]:
    """The requests that a process is started for."""
    return [make_request([3, 4, number]) for number in range(first, first + count)]


def fill(root: Path, *, first: int, count: int, per_commit: int) -> int:
    """Write what is missing and return how many records that were."""
    cache = open_cache(root)
    requests = numbered_requests(first, count)
    wanted = cache.missing(requests, k=8).generate
    with cache.writer(vocab=VOCAB) as writer:
        for position in wanted:
            record, request = answer(requests[position])
            writer.add(record, generation_key=generation_key(cache.identity.digest(), request), max_new_tokens=8)
            if writer.pending_rows >= per_commit:
                writer.commit()
    return len(wanted)


if __name__ == "__main__":
    root, first, count, per_commit = sys.argv[1], *map(int, sys.argv[2:])
    sys.stdout.write(f"{fill(Path(root), first=first, count=count, per_commit=per_commit)}\n")
