"""Where the objects of one teacher lie: a directory, or a prefix of an object store (`cache.disk.object_storage`).

An object is written once under a name such as `manifests/<uuid>.json` and is whole when its name appears. What the
cache needs of a place is small: list, read, create a name that nobody has taken, replace, delete, and a local file to
read chunks from. Errors are `OSError` everywhere, so that callers tell a disk (or a network) that fails from an object
that is not there (`FileNotFoundError`) and a name that is taken (`FileExistsError`).
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

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
from configs.errors import ConfigError
from configs.places import is_url
from configs.regular_files import JSON_BYTES, open_regular, read_regular

FOLDERS = ("staging", "segments", "manifests", "quarantine", "pins", "claims", "tombstones")

NOTE_BYTES = JSON_BYTES
"""No JSON object of a cache is longer."""

Span = tuple[int, int]
"""Offset and length in bytes."""


@runtime_checkable
class Objects(Protocol):
    """Objects by name that can be read: those of a cache, or of an archive of one. Safe to use from several threads.

    What is not a regular file, or longer than it may be, raises `configs.regular_files.UnreadableFileError`.
    """

    @property
    def place(self) -> str:
        """The directory, URL or archive, for messages."""
        ...

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Bytes of every object at any depth below a folder, by its path from there."""
        ...

    def fetch(self, name: str, *, at_most: int) -> bytes:
        """A whole object of at most so many bytes, from a local copy where the place is not local."""
        ...

    def fetch_spans(self, name: str, spans: Iterable[Span]) -> list[bytes]:
        """Parts of an object, from where `fetch` has it; short where the object ends."""
        ...

    def forget_copy(self, name: str) -> None:
        """Drop what `fetch` keeps, so that the next call fetches it again; nothing where the place is local."""
        ...


@runtime_checkable
class Storage(Objects, Protocol):
    """The objects of one teacher, by name."""

    def names(self, folder: str) -> list[str]:
        """Names directly below a folder, objects and folders alike, sorted; none for a folder that is not there."""
        ...

    def read(self, name: str, *, at_most: int = NOTE_BYTES) -> bytes:
        """A whole object of at most so many bytes, from where it really lies."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write an object under a name that nobody has taken; on stable storage when this returns.

        Raises:
            FileExistsError: when the name is taken.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write or overwrite an object; a reader sees the old bytes or the new ones."""
        ...

    def create_segment(self, name: str, objects: Mapping[str, bytes]) -> None:
        """Write all objects of `segments/<name>/`, which nobody reads before a manifest names it."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object if it is there."""
        ...

    def delete_folder(self, name: str) -> None:
        """Delete all objects below a folder."""
        ...

    def changed(self, name: str) -> float | None:
        """When an object, or the newest one below a folder, was written (seconds since 1970); `None` without any."""
        ...

    def unfinished(self) -> Mapping[str, float]:
        """Half-written objects that a crash left, by name, with the time of their last change."""
        ...


def open_storage(root: Path | str, digest: str, *, create: bool) -> Storage:
    """The place of the teacher of this digest below a cache root, a directory or a URL such as `s3://bucket/prefix`.

    Raises:
        ConfigError: when a directory is to be made and cannot be, or the URL cannot be used.
    """
    if is_url(root):
        from cache.disk.object_storage import ObjectStorage

        return ObjectStorage(f"{str(root).rstrip('/')}/{digest}")
    return LocalStorage(Path(root) / digest, create=create)


def list_teachers(root: Path | str) -> list[str]:
    """Digests of the teachers below a cache root.

    Raises:
        ConfigError: when the URL cannot be used.
        OSError: when the root cannot be read.
    """
    if is_url(root):
        from cache.disk.object_storage import ObjectStorage

        return [name for name in ObjectStorage(str(root)).names("") if _is_digest(name)]
    # An evicted teacher leaves its directories, which running processes may still write into.
    held = (path for path in Path(root).iterdir() if _is_digest(path.name) and any(path.glob("*.json")))
    return sorted(path.name for path in held)


def probe_root(url: str) -> None:
    """Write and delete an object below a URL.

    Raises:
        ConfigError: when the URL cannot be used.
        OSError: when the service refuses.
    """
    from cache.disk.object_storage import ObjectStorage

    storage, name = ObjectStorage(url), f".probe-{uuid.uuid4()}"
    storage.create(name, b"probe")
    storage.delete(name)


class LocalStorage:
    """A directory. Every write is on disk before its name appears."""

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


def _is_digest(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None
