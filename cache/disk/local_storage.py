"""A cache in a directory. Every write is on disk before its name appears."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.disk.durable import (
    UNFINISHED,
    link_exclusively,
    remove_entry,
    replace_file,
    sync_directory,
    write_new,
    write_tree,
)
from cache.disk.failpoints import failpoint
from cache.disk.storage import FOLDERS, NOTE_BYTES, Span
from configs.errors import ConfigError
from configs.regular_files import open_regular, read_regular


class LocalStorage:
    """A directory; see `cache.disk.storage.Storage`."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root
        if create:
            self._make()

    @property
    def place(self) -> str:
        """The directory."""
        return str(self.root)

    def names(self, folder: str) -> list[str]:
        """See `Storage`; half-written files are left out."""
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> Mapping[str, int]:
        """See `Storage`."""
        root = self.root / folder
        found = {}
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory, name)
                with suppress(FileNotFoundError):  # deleted while we looked
                    found[path.relative_to(root).as_posix()] = path.lstat().st_size
        return found

    def read(self, name: str, *, at_most: int = NOTE_BYTES) -> bytes:
        """See `Storage`."""
        with _nothing_below_files(self.root / name):
            return read_regular(self.root / name, at_most=at_most)

    def fetch(self, name: str, *, at_most: int) -> bytes:
        """See `Objects`."""
        return self.read(name, at_most=at_most)

    def fetch_spans(self, name: str, spans: Iterable[Span]) -> list[bytes]:
        """See `Objects`."""
        with _nothing_below_files(self.root / name):
            return read_spans(self.root / name, spans)

    def forget_copy(self, name: str) -> None:
        """See `Storage`."""

    def create(self, name: str, data: bytes) -> None:
        """See `Storage`."""
        target = self.root / name
        if target.exists():
            raise FileExistsError(f"{target} exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid.uuid4()}{UNFINISHED}")
        try:
            write_new(beside, data)
            link_exclusively(beside, target)
        finally:
            beside.unlink(missing_ok=True)

    def replace(self, name: str, data: bytes) -> None:
        """See `Storage`."""
        replace_file(self.root / name, data)

    def create_segment(self, name: str, objects: Mapping[str, bytes]) -> None:
        """Written in the writer's staging directory and renamed into place, so that no half segment stands there."""
        half = self.root / "staging" / name / "segment"
        write_tree(half, objects.items())
        failpoint("segment-after-arrays")
        target = self.root / "segments" / name
        os.rename(half, target)
        failpoint("segment-after-rename")
        sync_directory(target.parent)

    def delete(self, name: str) -> None:
        """See `Storage`; gone for good when this returns, so that the order of deletes survives a power cut."""
        path = self.root / name
        with suppress(FileNotFoundError):
            remove_entry(path)  # also somebody's directory under the name of an object
            sync_directory(path.parent)

    def delete_folder(self, name: str) -> None:
        """See `Storage`; whatever else bears the name of a folder goes too."""
        with suppress(FileNotFoundError):
            remove_entry(self.root / name)

    def changed(self, name: str) -> float | None:
        """See `Storage`; a directory that is still empty counts as well."""
        times = []
        for directory, _, names in os.walk(self.root / name):
            for path in (directory, *(os.path.join(directory, found) for found in names)):
                with suppress(FileNotFoundError):  # deleted while we looked
                    times.append(os.lstat(path).st_mtime)
        with suppress(FileNotFoundError, NotADirectoryError):
            times.append((self.root / name).lstat().st_mtime)
        return max(times, default=None)

    def unfinished(self) -> Mapping[str, float]:
        """See `Storage`."""
        found = {}
        for folder in ("", *FOLDERS):
            for path in (self.root / folder).glob(f".*{UNFINISHED}"):
                with suppress(FileNotFoundError):  # finished while we looked
                    found[path.relative_to(self.root).as_posix()] = path.lstat().st_mtime
        return found

    def _make(self) -> None:
        try:
            for folder in FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.root}: cannot be used as a cache ({error.strerror}): set runtime.cache_root to a writable "
                "directory"
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise ConfigError(f"{self.root}: not writable: fix its permissions or set runtime.cache_root")


def read_spans(path: Path, spans: Iterable[Span]) -> list[bytes]:
    """Parts of a regular file.

    Raises:
        UnreadableFileError: it is not one.
        OSError: it is missing or cannot be read.
    """
    with open_regular(path) as file:
        return [os.pread(file.fileno(), length, offset) for offset, length in spans]


@contextmanager
def _nothing_below_files(path: Path) -> Iterator[None]:
    """Below a file there is nothing: the object is missing, and the disk is in order."""
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from error
