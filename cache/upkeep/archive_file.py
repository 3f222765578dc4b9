"""The members of an archive (`cache.upkeep.archives`): written without times and owners, read without belief.

Names are compared with those that a manifest gives and are never turned into paths unseen, and sizes are bounded by the
manifest before anything is read.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cache.disk.directory import DESCRIPTION, FINGERPRINT, parse_description, parse_fingerprint
from cache.disk.manifests import LARGEST_MANIFEST, DamagedObject, Manifest, ObjectInfo, parse_manifest
from cache.disk.storage import NOTE_BYTES, Span
from cache.identity import Identity
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, open_regular, parse_json
from configs.visible_text import visible

COMPLETE = "complete.json"
MOST_MEMBERS = 2**22

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
    """The members of an archive, by name; nothing but regular files with names that a cache has.

    Its headers are read one by one and no further than the file goes: those that `tarfile` would read for itself
    (long names, sparse files) may claim any size. The members can be read like objects of a cache
    (`cache.disk.storage.Objects`), which is how they are proved before anything is written.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._members: dict[str, Span] = {}
        size, at = os.fstat(file.fileno()).st_size, 0
        while (header := os.pread(file.fileno(), tarfile.BLOCKSIZE, at)).strip(b"\0"):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            shown = visible(member.name, at_most=200)
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise self.refused(f"{shown} is not a regular file")
            if member.name not in (DESCRIPTION, FINGERPRINT, COMPLETE) and not _NAME.fullmatch(member.name):
                raise self.refused(f"{shown} is not a name that a cache has")
            if member.name in self._members:
                raise self.refused(f"{shown} stands in it twice")
            start = at + tarfile.BLOCKSIZE
            if not 0 <= member.size <= size - start:
                raise self.refused(f"{shown} is cut short")
            if len(self._members) == MOST_MEMBERS:
                raise self.refused(f"it holds more than {MOST_MEMBERS:,} members")
            self._members[member.name] = start, member.size
            at = start + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    @property
    def place(self) -> str:
        """The file, for messages."""
        return str(self._path)

    def sizes(self, folder: str) -> Mapping[str, int]:
        """See `cache.disk.storage.Objects`."""
        head = f"{folder}/"
        found = ((name, size) for name, (_, size) in self._members.items() if name.startswith(head))
        return {name.removeprefix(head): size for name, size in found}

    def fetch(self, name: str, *, at_most: int) -> bytes:
        """See `cache.disk.storage.Objects`."""
        start, size = self._span(name)
        if size > at_most:
            raise UnreadableFileError(f"{name}: is longer than the {at_most:,} bytes that it may have")
        return os.pread(self._file.fileno(), size, start)

    def fetch_spans(self, name: str, spans: Iterable[Span]) -> list[bytes]:
        """See `cache.disk.storage.Objects`."""
        start, size = self._span(name)
        return [
            os.pread(self._file.fileno(), max(min(length, size - offset), 0), start + offset)
            for offset, length in spans
        ]

    def forget_copy(self, name: str) -> None:
        """See `cache.disk.storage.Objects`."""

    def _span(self, name: str) -> Span:
        if name not in self._members:
            raise FileNotFoundError(errno.ENOENT, "no such member", f"{self._path}: {name}")
        return self._members[name]

    def refused(self, reason: str) -> CacheError:
        """The error that says why this archive is not taken."""
        return CacheError(f"{self._path}: not imported: {reason}")

    def identity(self) -> Identity:
        """Whose cache it is; raises `CacheError`."""
        return parse_description(self._bytes(DESCRIPTION, most=NOTE_BYTES), path=f"{self._path}: {DESCRIPTION}")

    def fingerprint(self) -> tuple[bytes, Any] | None:
        """What its teacher said when it was first asked, as it lies there and as JSON; None where it does not say.

        Raises `CacheError`.
        """
        if FINGERPRINT not in self._members:
            return None
        data = self._bytes(FINGERPRINT, most=NOTE_BYTES)
        return data, parse_fingerprint(data, path=f"{self._path}: {FINGERPRINT}")

    def manifests(self, identity: str) -> list[Manifest]:
        """The manifests of all its segments, which name exactly what is in it; raises `CacheError`."""
        try:
            note: Any = parse_json(self._bytes(COMPLETE, most=NOTE_BYTES), origin=COMPLETE)
            names = list(dict.fromkeys(str(name) for name in note["segments"]))
        except (ValueError, KeyError, TypeError) as error:
            raise self.refused(f"{COMPLETE} lists no segments") from error
        found, expected = [], {DESCRIPTION, FINGERPRINT, COMPLETE}
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
        if name not in self._members:
            raise self.refused(f"{visible(name, at_most=200)} is missing; was the file cut short?")
        _, size = self._members[name]
        if size > most:
            raise self.refused(f"{name} has {size} bytes, more than the {most} that it may have")
        data = self.fetch(name, at_most=most)
        if len(data) != size:
            raise self.refused(f"{name} is cut short")
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The members of an archive.

    Raises:
        CacheError: when it is not one, or cannot be read.
    """
    try:
        with open_regular(path, links="follow") as file:
            yield Archive(file, path)
    except tarfile.TarError as error:
        raise CacheError(f"{path}: not imported: not a whole tar archive ({error})") from error
    except UnreadableFileError as error:
        raise CacheError(f"{error}: name a file that `distill cache export` wrote") from error
    except OSError as error:
        raise CacheError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
