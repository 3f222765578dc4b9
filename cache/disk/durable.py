"""Files that survive a power cut, and files that only one process can create.

A name appears only once its bytes are on disk: write beside, fsync, then rename (replace) or link (exclusive), then
fsync the directory that holds the name.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".tmp"
"""End of the names of half-written files, which also begin with a dot."""

LEFTOVER_S = 86_400.0
"""A half-written file that nobody wrote to for this long was left by a process that was killed."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def sync_directory(path: Path) -> None:
    """Put the names inside a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that must not exist yet, and put its bytes (not yet its name) on disk.

    Raises:
        FileExistsError: when the name is taken.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write or overwrite a file so that a reader sees the old bytes or the new ones, never a mixture.

    `mode` says who may read it, from its first byte on.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4()}{UNFINISHED}")
    try:
        write_new(beside, data, mode=mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def large_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is written piece by piece and takes the name `path` when the context ends well, on disk by then.

    Until then it has no name, where the system knows such files: a process that is killed leaves nothing. Elsewhere it
    has a name of its own beside `path`, and who writes to `path` a day later removes it.

    Raises:
        OSError: the disk refuses; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path.name)
    beside = path.with_name(f".{path.name}.{uuid.uuid4()}{UNFINISHED}")
    try:
        with _nameless(path.parent) or open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not beside.exists():
                # Absolute, so that the directory is of no account: it makes the call follow the link.
                os.link(f"/proc/self/fd/{file.fileno()}", beside, src_dir_fd=file.fileno(), follow_symlinks=True)
        os.replace(beside, path)
        sync_directory(path.parent)
    finally:
        with suppress(OSError):  # what was said before is what matters
            beside.unlink(missing_ok=True)


def _nameless(directory: Path) -> BinaryIO | None:
    """A new file in a directory that no name leads to; `None` where there is no such thing."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.fdopen(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644), "wb")
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise


def remove_leftovers(folder: Path, *, of: str | None = None, older_than_s: float = LEFTOVER_S) -> None:
    """Remove the half-written files of a folder, or those on the way to the name `of`, which killed processes left."""
    head, now = "." if of is None else f".{of}.", time.time()
    with suppress(OSError):
        for found in os.scandir(folder):
            if found.name.startswith(head) and found.name.endswith(UNFINISHED):
                with suppress(OSError):  # another was faster, or it is somebody else's
                    if now - found.stat(follow_symlinks=False).st_mtime >= older_than_s:
                        os.unlink(found.path)


def remove_entry(path: Path) -> None:
    """Remove whatever bears a name: a directory with all that is in it, of a link the link alone.

    Raises:
        OSError: nothing bears it, or the disk refuses.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def link_exclusively(source: Path, target: Path) -> None:
    """Give a finished file its final name, unless the name is taken; on disk when this returns.

    Where the file system knows no hard links the bytes are written under the final name instead; a crash in the
    middle then leaves a torn file, which its reader must recognise by the digest inside.

    Raises:
        FileExistsError: when the name is taken.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_new(target, source.read_bytes())
    sync_directory(target.parent)


def write_tree(root: Path, objects: Iterable[tuple[str, bytes]]) -> None:
    """Write new files at paths relative to `root`, then put every directory on disk, the deepest first."""
    directories = {root}
    for name, data in objects:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        directories.update(parent for parent in path.parents if parent.is_relative_to(root))
        write_new(path, data)
    for directory in sorted(directories, key=lambda path: len(path.parts), reverse=True):
        sync_directory(directory)
