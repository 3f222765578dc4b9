"""Local copies of the objects of a bucket, at most so many bytes of them: what was used longest ago goes first.

They lie below `STILLROOM_COPIES`, by default `stillroom` in the user's cache directory, and all buckets and processes
of a machine share them. `STILLROOM_COPIES_GIB` is what they may take together, 100 GiB unless it is set. Objects never
change, so a copy is either what was written or is found damaged by its digest and fetched anew; one that another
process has removed is fetched anew as well.

Nothing is locked. Two processes that make room at once may remove a little more than is needed, and each may go beyond
the room by a twentieth before it notices.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cache.disk.durable import UNFINISHED, remove_entry, remove_leftovers
from cache.disk.local_storage import read_spans
from cache.disk.storage import Span
from configs.errors import ConfigError
from configs.regular_files import read_regular

PLACE_VARIABLE, ROOM_VARIABLE = "STILLROOM_COPIES", "STILLROOM_COPIES_GIB"

ROOM_GIB = 100.0

_ROOM_LEFT = 0.1
"""The share of the room that is made when it is full."""

_LOOKED_EVERY = 0.05
"""The share of the room that a process writes before it looks through all copies, for others write too."""

_USED_EVERY_S = 60.0
"""How exactly it is known when a copy was used last."""

_PLACE_DIGITS = 32
_PLACE = re.compile(f"[0-9a-f]{{{_PLACE_DIGITS}}}")
"""How the folder of a place is called."""


class Copies:
    """The copies of one place, below a directory that all places share.

    Args:
        place: What is copied, by its URL.
        root: The directory of all places.
        room: Bytes that all copies below it may take together.
    """

    def __init__(self, place: str, *, root: Path, room: int) -> None:
        self._root, self._room = root, room
        self._folder = root / hashlib.sha256(place.encode()).hexdigest()[:_PLACE_DIGITS]
        # Written since all copies were looked at. Those that are there already may fill the room.
        self._written = room

    def read(self, name: str, *, at_most: int) -> bytes:
        """A whole copy.

        Raises:
            FileNotFoundError: there is none.
            UnreadableFileError: it is no file, or a longer one.
            OSError: it cannot be read.
        """
        data = read_regular(self._folder / name, at_most=at_most)
        self._used(name)
        return data

    def read_spans(self, name: str, spans: Iterable[Span]) -> list[bytes]:
        """Parts of a copy; it raises as `read`."""
        parts = read_spans(self._folder / name, spans)
        self._used(name)
        return parts

    def keep(self, name: str, data: bytes) -> None:
        """Keep a copy of an object, and remove others where there is no room for all. One that is too large is not.

        Raises:
            OSError: it cannot be written.
        """
        if len(data) > self._room:
            return
        copy = self._folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(copy.parent, of=copy.name)
        beside = copy.with_name(f".{copy.name}.{uuid.uuid4()}{UNFINISHED}")
        try:
            # Not put on disk: a copy that a power cut empties fails its digest and is fetched again.
            beside.write_bytes(data)
            os.replace(beside, copy)
        finally:
            beside.unlink(missing_ok=True)
        self._make_room(len(data))

    def forget(self, name: str) -> None:
        """Drop a copy; whatever stands in its place goes."""
        with suppress(FileNotFoundError):
            remove_entry(self._folder / name)

    def _used(self, name: str) -> None:
        """Note that a copy was used, so that it stays longer than others."""
        copy = self._folder / name
        with suppress(OSError):
            if time.time() - copy.stat().st_mtime > _USED_EVERY_S:
                os.utime(copy)

    def _make_room(self, written: int) -> None:
        """Remove the copies that were used longest ago, if there are too many with these bytes."""
        self._written += written
        if self._written < self._room * _LOOKED_EVERY:
            return
        self._written = 0
        held = sorted(_copies_below(self._root), key=lambda copy: copy.used)
        taken = sum(copy.size for copy in held)
        if taken > self._room:
            target = self._room * (1 - _ROOM_LEFT)
            # The youngest is what has just been written, and what whoever wrote it is about to read.
            for copy in held[:-1]:
                if taken <= target:
                    break
                with suppress(FileNotFoundError):
                    copy.path.unlink()
                taken -= copy.size


@dataclass(frozen=True, slots=True)
class _Copy:
    path: Path
    size: int
    used: float


def _copies_below(root: Path) -> Iterator[_Copy]:
    """Those of all places. Whatever else lies in a directory that somebody named is not ours to remove."""
    places = [path for path in root.iterdir() if _PLACE.fullmatch(path.name)]
    for folder, _, files in chain.from_iterable(map(os.walk, places)):
        for name in files:
            if name.endswith(UNFINISHED):
                continue
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                facts = path.stat()
                yield _Copy(path, facts.st_size, facts.st_mtime)


def copies_directory() -> Path:
    """Where local copies of objects are kept."""
    chosen = os.environ.get(PLACE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stillroom"


def copies_room() -> int:
    """Bytes that they may take together.

    Raises:
        ConfigError: the variable that says so does not hold a number of at least 0.
    """
    said = os.environ.get(ROOM_VARIABLE, "").strip() or str(ROOM_GIB)
    with suppress(ValueError, OverflowError):
        room = int(float(said) * 2**30)
        if room >= 0:
            return room
    raise ConfigError(f"{ROOM_VARIABLE}={said} is not a number of GiB: set it to what copies may take, such as 100")
