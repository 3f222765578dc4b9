"""Temporary directories that go with their process: those of a killed one are removed by the next that starts.

Each holds a file that its owner keeps locked as long as it lives, so nobody has to guess whose owner is gone.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.regular_files import UnreadableFileError, open_regular
from orchestration.outputs.locks import take_if_possible

PREFIX = "stillroom-"

ALIVE = "alive"
"""The file that is locked."""


@contextmanager
def scratch_directory(what: str) -> Iterator[Path]:
    """A directory for as long as the context lasts; its name says `what` it is for.

    Raises:
        FileNotFoundError: there is no place for temporary files.
    """
    sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{what}-") as name, kept_alive(Path(name)):
        yield Path(name)


@contextmanager
def kept_alive(directory: Path) -> Iterator[None]:
    """Within, nobody takes this directory for one of the dead."""
    # Locked before it has its name: a sweep that came in between would take its owner for dead.
    with (directory / f"{ALIVE}.new").open("w") as alive:
        # Where files cannot be locked, nobody tidies up after this process; it can work all the same.
        take_if_possible(alive.fileno())
        os.rename(alive.name, directory / ALIVE)
        yield


def sweep(place: Path) -> None:
    """Remove the directories of processes that were killed."""
    for directory in dead(place):
        shutil.rmtree(directory, ignore_errors=True)


def dead(place: Path) -> list[Path]:
    """The directories of processes that were killed: the kernel freed their lock when they died.

    Every user may write here, so only this user's own directories are looked into.
    """
    found = []
    for directory in place.glob(f"{PREFIX}*"):
        try:
            status = directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with open_regular(directory / ALIVE) as alive:
                is_dead = take_if_possible(alive.fileno())
        except (OSError, UnreadableFileError):
            # Just being made.
            continue
        if is_dead:
            found.append(directory)
    return found
