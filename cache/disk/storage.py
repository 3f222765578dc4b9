"""The place where the objects of one teacher lie, whatever it is: a directory or a prefix of an object store.

An object is written once under a name such as `manifests/<uuid>.json` and is whole when its name appears. What the
cache needs of a place is small: list, read, create a name that nobody has taken, replace, delete, and a local file to
read chunks from. Errors are `OSError` everywhere, so that callers tell a disk (or a network) that fails from an object
that is not there (`FileNotFoundError`) and a name that is taken (`FileExistsError`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from configs.regular_files import JSON_BYTES

FOLDERS = ("staging", "segments", "manifests", "quarantine", "pins", "claims", "tombstones", "failures")

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
        """A whole object of at most `at_most` bytes, from a local copy where the place is not local."""
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
        """A whole object of at most `at_most` bytes, from where it really lies."""
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
