"""Reading an object and comparing it with its manifest before anybody sees a byte of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from cache.disk.manifests import DamagedObject, ObjectInfo
from cache.disk.storage import Objects
from configs.regular_files import UnreadableFileError

ABSENT = "missing"
"""How the reason begins when an object is not there, as opposed to being wrong."""


@contextmanager
def damage_of(segment: str, name: str) -> Iterator[None]:
    """An object that is not there, or is not a file at all, is damage of its segment."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedObject(segment, name, ABSENT) from error
    except UnreadableFileError as error:
        raise DamagedObject(segment, name, str(error)) from error


def read_verified(storage: Objects, name: str, info: ObjectInfo, *, segment: str) -> bytes:
    """Read a whole object; one that differs from its manifest is read again, and the second time counts.

    Raises:
        DamagedObject: the object is missing, or its size or digest differs in two reads.
        OSError: it cannot be read, which says nothing about its content.
    """
    shown = name.removeprefix(f"segments/{segment}/")
    reason = ""
    for _ in range(2):
        try:
            with damage_of(segment, shown):
                data = storage.fetch(name, at_most=info.size)
        except DamagedObject as error:
            if error.reason == ABSENT:
                raise
            storage.forget_copy(name)
            reason = error.reason
            continue
        if len(data) != info.size:
            reason = f"{len(data)} bytes instead of {info.size}"
        elif hashlib.sha256(data).hexdigest() == info.sha256:
            return data
        else:
            reason = "SHA-256 differs from the manifest"
        storage.forget_copy(name)
    raise DamagedObject(segment, shown, reason)
