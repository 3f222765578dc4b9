"""What one process writes of a checkpoint, and how it gets to the disk: written, hashed once, synced, read back.

Every process does so for its own files, in a thread beside the training.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.errors import TrainingError
from configs.regular_files import open_regular

Described = dict[str, tuple[int, str]]
"""Size and SHA-256 (hex) of files, by their names within the checkpoint."""

_BLOCK = 2**22


@dataclass(frozen=True, slots=True)
class ShareFile:
    """A file of a checkpoint. `write` makes it from values that nobody changes; without it, it is written already."""

    path: Path
    write: Callable[[Path], object] | None = None


def put_on_disk(files: list[ShareFile], *, staging: Path, final: Path) -> Described:
    """Write files below `staging`, and read them back from the disk; the list is empty afterwards.

    Raises:
        TrainingError: one does not read back as it was written; it names `final`, which the checkpoint would become.
        OSError: the disk refuses, or is full.
    """
    described: dict[str, tuple[int, str]] = {}
    while files:
        # Taken out, so that the memory of what it was written from is free as soon as it is written.
        file = files.pop(0)
        name = str(file.path.relative_to(staging))
        if file.write is not None:
            file.write(file.path)
        path = file.path
        del file
        described[name] = path.stat().st_size, sha256(path)
        sync_file(path)
        if sha256(path, from_disk=True) != described[name][1]:
            raise TrainingError(
                f"checkpoint {final} was damaged while it was written ({name} does not match its digest): "
                "check the disk"
            )
    return described


def sync_file(path: Path) -> None:
    """Put the bytes of a file on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path, *, from_disk: bool = False) -> str:
    """The digest (hex) of a regular file; `from_disk` says that what memory holds of it does not count."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        if from_disk:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # In blocks, until `read` returns nothing at the end of the file: shards are larger than memory may be.
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
