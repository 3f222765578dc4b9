"""The members of an archive (`cache.upkeep.archives`): written without times and owners, read without belief.

Names are compared with those that a manifest gives and are never turned into paths unseen, and sizes are bounded by the
manifest before anything is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.disk.directory import DESCRIPTION, parse_description
from cache.disk.manifests import LARGEST_MANIFEST, DamagedObject, Manifest, ObjectInfo, parse_manifest
from cache.identity import Identity
from configs.errors import CacheError

COMPLETE = "complete.json"
LARGEST_NOTE = 2**26
"""Bytes of `identity.json` and `complete.json` at most."""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"manifests/({_UUID})\.(?:json|keys)|segments/({_UUID})/{_PART}(?:/{_PART})*")


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """The same bytes for the same segments: no times, no owners."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def segment_objects(manifest: Manifest) -> dict[str, ObjectInfo]:
    """Every object of a segment by its name in the cache, the keys last."""
    found = {f"segments/{manifest.uuid}/{path}": info for path, info in manifest.objects.items()}
    return {**found, f"manifests/{manifest.uuid}.keys": manifest.keys}


class Archive:
    """The members of an archive, by name; nothing but regular files with names that a cache has."""

    def __init__(self, file: tarfile.TarFile, path: Path) -> None:
        self._file, self._path = file, path
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in file:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise self.refused(f"{member.name[:200]!r} is no regular file")
            if member.name not in (DESCRIPTION, COMPLETE) and not _NAME.fullmatch(member.name):
                raise self.refused(f"{member.name[:200]!r} is no name of a cache")
            if member.name in self._members:
                raise self.refused(f"{member.name} stands in it twice")
            self._members[member.name] = member

    def refused(self, reason: str) -> CacheError:
        """The error that says why this archive is not taken."""
        return CacheError(f"{self._path}: not imported: {reason}")

    def identity(self) -> Identity:
        """Whose cache it is; raises `CacheError`."""
        return parse_description(self._bytes(DESCRIPTION, most=LARGEST_NOTE), path=f"{self._path}: {DESCRIPTION}")

    def manifests(self, identity: str) -> list[Manifest]:
        """The manifests of all its segments, which name exactly what is in it; raises `CacheError`."""
        try:
            note = json.loads(self._bytes(COMPLETE, most=LARGEST_NOTE))
            names = [str(name) for name in note["segments"]]
        except (ValueError, KeyError, TypeError) as error:
            raise self.refused(f"{COMPLETE} lists no segments") from error
        found, expected = [], {DESCRIPTION, COMPLETE}
        for name in names:
            data = self._bytes(f"manifests/{name}.json", most=LARGEST_MANIFEST)
            try:
                manifest = parse_manifest(data, uuid=name, identity=identity, place=str(self._path))
            except DamagedObject as error:
                raise self.refused(str(error)) from error
            found.append(manifest)
            expected |= {f"manifests/{name}.json", *segment_objects(manifest)}
        foreign = sorted(self._members.keys() - expected)
        if foreign:
            raise self.refused(f"{foreign[0]} belongs to no segment of it")
        return found

    def read(self, name: str, info: ObjectInfo) -> bytes:
        """An object that is what its manifest says; raises `CacheError`."""
        data = self._bytes(name, most=info.size)
        if len(data) != info.size or hashlib.sha256(data).hexdigest() != info.sha256:
            raise self.refused(f"{name} differs from its manifest")
        return data

    def _bytes(self, name: str, *, most: int) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise self.refused(f"{name} is missing; was the file cut short?")
        if member.size > most:
            raise self.refused(f"{name} has {member.size} bytes, more than the {most} that it may have")
        source = self._file.extractfile(member)
        data = b"" if source is None else source.read()
        if len(data) != member.size:
            raise self.refused(f"{name} is cut short")
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The members of an archive.

    Raises:
        CacheError: when it is not one, or cannot be read.
    """
    try:
        with tarfile.open(path, mode="r:") as file:
            yield Archive(file, path)
    except tarfile.TarError as error:
        raise CacheError(f"{path}: not imported: not a whole tar archive ({error})") from error
    except OSError as error:
        raise CacheError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
