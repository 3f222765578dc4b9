"""The segments of one teacher: which count, which are damaged, and the index over them.

Nothing here decides what a caller needs (that is `cache.store`); this is the state behind it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.columns import SegmentSize, layouts
from cache.durable import sync_directory, write_new
from cache.index import KeyIndex, Table, unpack_keys
from cache.manifests import DamagedObject, Manifest, read_manifest
from cache.records import TeacherRecord
from cache.segments import Segment
from cache.shards import ABSENT, ChunkCache, read_verified
from configs.errors import CacheError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what its manifest says, or a manifest that cannot be read."""

    segment: str
    name: str
    reason: str


class Library:
    """All sound segments below `directory`, numbered in the order in which they were taken in."""

    def __init__(self, directory: Path, *, identity: str, cache_bytes: int) -> None:
        self.directory = directory
        self.index = KeyIndex()
        self._identity = identity
        self._chunks = ChunkCache(cache_bytes)
        self._segments: list[Segment] = []
        self._numbers: dict[str, int] = {}
        self._aside: set[str] = set()
        self._warned: set[str] = set()

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of all sound segments."""
        return [self._segments[number].manifest for number in self._numbers.values()]

    def number(self, uuid: str) -> int | None:
        """The number of a sound segment."""
        return self._numbers.get(uuid)

    def segment(self, number: int) -> Segment:
        """The segment of this number."""
        return self._segments[number]

    def refresh(self) -> None:
        """Take in all segments that were committed since.

        Raises:
            CacheError: for a manifest of another format or teacher, or a directory that cannot be read.
        """
        self._aside |= {marker.stem for marker in self._listed("quarantine", suffix=".json")}
        lost = self._aside & self._numbers.keys()
        for uuid in lost:
            del self._numbers[uuid]
        loaded = []
        for path in self._listed("manifests", suffix=".json"):
            if path.stem not in self._numbers and path.stem not in self._aside:
                try:
                    manifest = self._read_manifest(path)
                    loaded.append((manifest, self._read_keys(manifest)))
                except DamagedObject as error:
                    self._warn(error)
        self.admit(loaded)
        if lost:
            self._rebuild()

    def admit(self, loaded: Sequence[tuple[Manifest, bytes]]) -> None:
        """Take in segments with their key objects, whose bytes are known to be good."""
        tables = []
        for manifest, keys in loaded:
            segment = Segment(self.directory / "segments" / manifest.uuid, manifest, chunks=self._chunks)
            try:
                self._check_present(segment)
                tables.append(unpack_keys(keys, manifest, segment=len(self._segments)))
            except DamagedObject as error:
                self._warn(error)
                continue
            self._numbers[manifest.uuid] = len(self._segments)
            self._segments.append(segment)
        if tables:
            self.index.extend(tables, age=self._age())

    def read(self, entries: Table, *, k: int | None) -> list[TeacherRecord]:
        """Records of index entries in their order, each segment read once.

        Raises:
            DamagedObject: after which `set_aside` should follow.
            CacheError: when the disk cannot be read.
        """
        records: list[TeacherRecord | None] = [None] * len(entries)
        for number in np.unique(entries["segment"]).tolist():
            here = np.flatnonzero(entries["segment"] == number)
            try:
                found = self._segments[number].read(entries[here], k=k)
            except OSError as error:
                raise CacheError(f"{error.filename}: cannot be read ({error.strerror}): check the disk") from error
            for at, record in zip(here.tolist(), found, strict=True):
                records[at] = record
        return [record for record in records if record is not None]

    def tokens(self, number: int, *, row: int, length: int) -> NDArray[np.int32]:
        """The first `length` tokens of one sequence; raises like `read`."""
        try:
            return self._segments[number].prefix(row, length=length)
        except OSError as error:
            raise CacheError(f"{error.filename}: cannot be read ({error.strerror}): check the disk") from error

    def set_aside(self, error: DamagedObject) -> None:
        """Stop using a damaged segment: its rows count as missing.

        Bytes that were wrong in two reads also leave a marker for others. An object that is merely gone may come back
        (a network file system shows new files late), so the next refresh looks again.

        Raises:
            CacheError: when the disk cannot be read.
        """
        self._warn(error)
        self._numbers.pop(error.segment, None)
        if not error.reason.startswith(ABSENT):
            self._aside.add(error.segment)
            self._mark(error)
        self._rebuild()

    def damages(self) -> list[Damage]:
        """Compare every object of every manifest with its digest, quarantined segments included; changes nothing.

        Raises:
            CacheError: for a manifest of another format or teacher, or a disk that cannot be read.
        """
        found = []
        for path in self._listed("manifests", suffix=".json"):
            try:
                manifest = self._read_manifest(path)
            except DamagedObject as error:
                found.append(Damage(error.segment, error.name, error.reason))
                continue
            keys = (path.with_suffix(".keys"), manifest.keys, f"manifests/{manifest.uuid}.keys")
            root = self.directory / "segments" / manifest.uuid
            for place, info, name in [keys, *((root / name, info, name) for name, info in manifest.objects.items())]:
                try:
                    read_verified(place, info, segment=manifest.uuid, name=name)
                except DamagedObject as error:
                    found.append(Damage(error.segment, error.name, error.reason))
                except OSError as error:
                    raise CacheError(f"{place}: cannot be read ({error.strerror}): check the disk") from error
        return found

    def _listed(self, folder: str, *, suffix: str) -> list[Path]:
        place = self.directory / folder
        try:
            return sorted(path for path in place.iterdir() if path.suffix == suffix)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(f"{place}: cannot be read ({error.strerror}): check runtime.cache_root") from error

    def _read_manifest(self, path: Path) -> Manifest:
        try:
            return read_manifest(path, identity=self._identity)
        except OSError as error:
            raise CacheError(f"{path}: cannot be read ({error.strerror}): check the disk") from error

    def _read_keys(self, manifest: Manifest) -> bytes:
        path = self.directory / "manifests" / f"{manifest.uuid}.keys"
        try:
            return read_verified(path, manifest.keys, segment=manifest.uuid, name=f"manifests/{path.name}")
        except OSError as error:
            raise CacheError(f"{path}: cannot be read ({error.strerror}): check the disk") from error

    def _check_present(self, segment: Segment) -> None:
        """Sizes alone, so that a lost file is a miss at once; contents are checked when they are read."""
        uuid = segment.manifest.uuid
        for name in layouts(SegmentSize.of(segment.manifest)):
            if not any(path.startswith(f"{name}/c/") for path in segment.manifest.objects):
                raise DamagedObject(uuid, name, "not named by the manifest")
        absent = segment.missing_object()
        if absent is not None:
            raise DamagedObject(uuid, absent, f"{ABSENT} or of another size")

    def _age(self) -> NDArray[np.int64]:
        age = np.empty(len(self._segments), dtype=np.int64)
        age[sorted(range(len(age)), key=lambda number: self._segments[number].manifest.order)] = np.arange(len(age))
        return age

    def _rebuild(self) -> None:
        """The index anew from the key objects of the segments that are still sound."""
        # The old index stays until the new one is complete: an empty one would have everything asked for again.
        index, tables = KeyIndex(), []
        for uuid, number in list(self._numbers.items()):
            manifest = self._segments[number].manifest
            try:
                tables.append(unpack_keys(self._read_keys(manifest), manifest, segment=number))
            except DamagedObject as error:
                self._warn(error)
                del self._numbers[uuid]
        if tables:
            index.extend(tables, age=self._age())
        self.index = index

    def _warn(self, error: DamagedObject) -> None:
        """Tell once a segment; what cannot be taken in is looked at again by every refresh."""
        if error.segment not in self._warned:
            self._warned.add(error.segment)
            _log.warning("%s: set aside, its rows count as missing: %s", self.directory, error)

    def _mark(self, error: DamagedObject) -> None:
        marker = self.directory / "quarantine" / f"{error.segment}.json"
        text = {"segment": error.segment, "object": error.name, "reason": error.reason, "time": time.time()}
        try:
            write_new(marker, json.dumps(text).encode())
            sync_directory(marker.parent)
        except FileExistsError:
            return
        except OSError as failure:
            _log.warning("%s: no marker for the damaged segment (%s)", marker, failure.strerror)
