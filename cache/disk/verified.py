"""Reading an object and comparing it with its manifest before anybody sees a byte of it."""

from __future__ import annotations

import hashlib

from cache.disk.manifests import DamagedObject, ObjectInfo
from cache.disk.storage import Storage

ABSENT = "missing"
"""How the reason begins when an object is not there, as opposed to being wrong."""


def read_verified(storage: Storage, name: str, info: ObjectInfo, *, segment: str) -> bytes:
    """Read a whole object; one that differs from its manifest is read again, and the second time counts.

    Raises:
        DamagedObject: the object is missing, or its size or digest differs in two reads.
        OSError: it cannot be read, which says nothing about its content.
    """
    shown = name.removeprefix(f"segments/{segment}/")
    reason = ""
    for _ in range(2):
        try:
            path = storage.local(name)
            size = path.stat().st_size
            data = path.read_bytes() if size == info.size else b""
        except FileNotFoundError as error:
            raise DamagedObject(segment, shown, ABSENT) from error
        if size != info.size:
            reason = f"{size} bytes instead of {info.size}"
        elif hashlib.sha256(data).hexdigest() == info.sha256:
            return data
        else:
            reason = "SHA-256 differs from the manifest"
        storage.forget_copy(name)
    raise DamagedObject(segment, shown, reason)
