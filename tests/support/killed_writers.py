"""Writers that are killed at random moments, and what must be true of the cache after each of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store_builders import open_cache
from store_kinds import Kind
from store_process import fill

from cache.store import TeacherCache

ROOT = Path(__file__).parents[2]


class Writers:
    """A server of writers of one kind of rows (`store_process.serve`), one at a time."""

    def __init__(self, process: subprocess.Popen[str], kind: Kind) -> None:
        self._process, self._kind = process, kind

    def start(self, root: Path, *, count: int, per_commit: int, wait_until_open: bool) -> int:
        """Start a writer; the answer is its pid."""
        self._say(f"{root} 0 {count} {per_commit} {self._kind.name}")
        pid, is_open = 0, not wait_until_open
        while not (pid and is_open):
            word, _, rest = self._read().partition(" ")
            pid = int(rest) if word == "pid" else pid
            is_open |= word == "open"
        return pid

    def first_commit(self, root: Path) -> float:
        """The seconds from the opened cache to the first commit of a writer here."""
        self.start(root, count=1, per_commit=1, wait_until_open=True)
        begun = time.monotonic()
        assert self._read() == "committed 0"
        seconds = time.monotonic() - begun
        assert self.end() == (0, [])
        return seconds

    def end(self) -> tuple[int, list[int]]:
        """Wait for the end of the writer: its status, and the numbers of which it said that they are committed."""
        self._say("")
        numbers: list[int] = []
        while True:
            word, _, rest = self._read().partition(" ")
            if word == "committed":
                numbers += map(int, rest.split())
            elif word == "ended":
                return int(rest), numbers

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server of writers died"
        return line.rstrip("\n")


@contextmanager
def writers(kind: Kind) -> Iterator[Writers]:
    """A server of writers."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("store_process.py")), "serve"],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Writers(process, kind)


def kill_at_random(root: Path, kind: Kind, *, kills: int, count: int, seed: int, look_every: int) -> int:
    """Kill so many writers of one kind of rows in one cache; the answer is how many of them had committed something before.

    After each a reader that was there before looks at the cache, now and then a new one does, which also verifies it.
    """
    moments = random.Random(seed)
    reader, said, productive = open_cache(root), set[int](), 0
    with writers(kind) as server:
        # On a slow disk, too, most of them must live long enough to commit.
        span = 2 * server.first_commit(root.with_name(f"{root.name}-timed"))
        for number in range(kills):
            # Some die while they open the cache, most while they write.
            opening = moments.random() < 0.1
            pid = server.start(root, count=count, per_commit=moments.randint(1, 4), wait_until_open=not opening)
            time.sleep(moments.uniform(0.0, 0.05 if opening else span))
            os.kill(pid, signal.SIGKILL)
            status, numbers = server.end()
            assert status == signal.SIGKILL, "it had nothing left to do"
            said.update(numbers)
            productive += bool(numbers)
            if not productive:
                # The machine has become busier than it was when the first commit was timed.
                span *= 1.5
            reader.refresh()
            kind.assert_right(reader, numbers)
            if number % look_every == look_every - 1:
                fresh = open_cache(root)
                assert fresh.verify() == []
                assert_nothing_else(fresh, kind, said=said, count=count)
    return productive


def assert_nothing_else(cache: TeacherCache, kind: Kind, *, said: set[int], count: int) -> None:
    """All rows that a writer spoke of are there, no row is wrong, and none is there that nobody was to write."""
    found = [number for number, key in enumerate(kind.keys(cache, range(count))) if key is not None]
    assert said <= set(found)
    kind.assert_right(cache, found)
    assert kind.count(cache) == len(found)


def assert_resumed(root: Path, undisturbed: Path, kind: Kind, *, count: int) -> None:
    """A resume writes the rest, and leaves the keys that a run without any kill leaves elsewhere."""
    before = count - len(kind.missing(open_cache(root), range(count)))
    assert fill(root, kind, first=0, count=count, per_commit=100) == count - before > 0
    fill(undisturbed, kind, first=0, count=count, per_commit=100)
    for place in (root, undisturbed):
        assert_nothing_else(open_cache(place), kind, said=set(range(count)), count=count)
    assert stored_keys(root) == stored_keys(undisturbed)
    assert open_cache(root).verify() == []


def stored_keys(root: Path) -> tuple[set[bytes], set[bytes]]:
    """Sequence keys and generation keys as they stand in the key objects."""
    cache = open_cache(root)
    sequences, generations = set[bytes](), set[bytes]()
    for manifest in cache._library.manifests:
        data = cache._library.storage.read(f"manifests/{manifest.uuid}.keys")
        after = manifest.rows * (32 + 20)
        sequences |= {data[at : at + 32] for at in range(0, manifest.rows * 32, 32)}
        generations |= {data[at : at + 32] for at in range(after, len(data), 76)}
    return sequences, generations
