"""What lies below a cache root: one place a teacher, in a directory or below a URL such as `s3://bucket/prefix`."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from cache.disk.local_storage import LocalStorage
from cache.disk.storage import Storage
from configs.places import is_url


def open_storage(root: Path | str, digest: str, *, create: bool) -> Storage:
    """The place of the teacher of this digest below a cache root, a directory or a URL such as `s3://bucket/prefix`.

    Raises:
        ConfigError: when a directory is to be made and cannot be, or the URL cannot be used.
    """
    if is_url(root):
        from cache.disk.object_storage import ObjectStorage

        return ObjectStorage(f"{str(root).rstrip('/')}/{digest}")
    return LocalStorage(Path(root) / digest, create=create)


def open_root(root: Path | str) -> Storage:
    """What lies below a cache root beside its teachers; nothing is made before something is written.

    Raises:
        ConfigError: when the URL cannot be used.
    """
    if is_url(root):
        from cache.disk.object_storage import ObjectStorage

        return ObjectStorage(str(root).rstrip("/"))
    return LocalStorage(Path(root))


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


def _is_digest(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None
