"""The segments of one teacher: which count, which are damaged, and the index over them.

Nothing here decides what a caller needs (that is `cache.store`); this is the state behind it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.blocks import RecordBlock, read_block, read_records
from cache.disk.columns import SegmentSize, layouts
from cache.disk.key_objects import KeyObject, KeyPrefixes, KeyTables, Table
from cache.disk.manifests import DamagedObject, Manifest, read_manifest
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.disk.storage import Objects, Storage
from cache.disk.verified import ABSENT, read_verified
from cache.index import SEGMENT_FACTS, KeyIndex
from cache.records import TeacherRecord
from cache.signal_blocks import SignalBlock, read_signals
from configs.errors import CacheError

PARALLEL_READS = 8
"""Manifests and key objects that are read and hashed at once."""

_Answer = TypeVar("_Answer")

Prove = Callable[[Objects, Manifest], None]
"""Raises `DamagedObject` for a segment that does not hold what it says."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what its manifest says, or a manifest that cannot be read."""

    segment: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A segment that is taken in, with its keys."""

    segment: Segment
    keys: KeyObject
    prefixes: KeyPrefixes


class Library:
    """All sound segments of a teacher, numbered in the order in which they were taken in.

    A segment that was replaced (`tombstones/`) answers no more questions, but views that name it can read it until it
    is deleted.
    """

    def __init__(self, storage: Storage, *, identity: str, cache_bytes: int) -> None:
        self.storage = storage
        self.lock = threading.RLock()
        """Held by whoever changes the set of segments, and by whoever asks the index."""
        self.index = KeyIndex()
        self._identity = identity
        self._chunks = ChunkCache(cache_bytes)
        self._segments: list[Segment] = []
        self._numbers: dict[str, int] = {}
        self._aside: set[str] = set()
        self._retired: set[str] = set()
        self._warned: set[str] = set()
        self._arrived: dict[str, int] = {}

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of all sound segments that were not replaced."""
        return [self._segments[at].manifest for uuid, at in self._numbers.items() if uuid not in self._retired]

    def number(self, uuid: str) -> int | None:
        """The number of a sound segment; one that was replaced meanwhile is looked for on disk.

        Raises:
            CacheError: when the disk cannot be read.
        """
        if uuid not in self._numbers and uuid in self._retired and uuid not in self._aside:
            loaded = self._load(uuid)
            if loaded is not None:
                self._number(loaded.segment)
        return self._numbers.get(uuid)

    def segment(self, number: int) -> Segment:
        """The segment of this number."""
        return self._segments[number]

    def refresh(self) -> None:
        """Take in all segments that were committed since, and part with those that were replaced, damaged or deleted.

        Raises:
            CacheError: for a manifest of another format or teacher, or a place that cannot be read.
        """
        self._aside |= self._listed("quarantine")
        retired = self._listed("tombstones")
        listed = self._listed("manifests")
        for uuid in (self._aside | (self._numbers.keys() - listed)) & self._numbers.keys():
            self.index.drop(self._numbers.pop(uuid))
        for uuid in (retired - self._retired) & self._numbers.keys():
            self.index.drop(self._numbers[uuid])
        self._retired |= retired
        new = sorted(listed - self._numbers.keys() - self._aside - self._retired)
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            self._admit(pool.map(self._load, new) if len(new) > 1 else map(self._load, new))

    def newest_ns(self) -> int:
        """`created_ns` of the youngest segment that stands on the disk now, 0 without any.

        Only manifests that were never read are. Replaced segments are passed over: what replaced them is there too.

        Raises:
            CacheError: when the place cannot be read.
        """
        with self.lock:
            for uuid in self._listed("manifests") - self._arrived.keys() - self._retired:
                with self.disk_errors(), suppress(DamagedObject, FileNotFoundError):
                    self._arrived[uuid] = read_manifest(self.storage, uuid, identity=self._identity).created_ns
            return max(self._arrived.values(), default=0)

    def admit(self, manifest: Manifest, keys: bytes) -> None:
        """Take in a segment with its key object, whose bytes are known to be good."""
        with self.lock:
            try:
                loaded = self._check(manifest, keys)
            except DamagedObject as error:
                self._warn(error)
                return
            self._admit([loaded])

    def read(self, entries: Table, *, k: int | None) -> list[TeacherRecord]:
        """Records of index entries in their order, each segment read once.

        Raises:
            DamagedObject: after which `set_aside` should follow.
            CacheError: when the disk cannot be read.
        """
        with self.disk_errors():
            return read_records(self._segments, entries, k=k)

    def read_block(self, entries: Table, *, k: int | None) -> RecordBlock:
        """The same as flat arrays; raises like `read`."""
        with self.disk_errors():
            return read_block(self._segments, entries, k=k)

    def read_signals(self, entries: Table, *, with_tokens: bool) -> SignalBlock:
        """The signals of index entries in their order, as flat arrays; raises like `read`."""
        with self.disk_errors():
            return read_signals(self._segments, entries, with_tokens=with_tokens)

    def require_kind(self, entries: Table, *, signals: bool) -> None:
        """Refuse index entries of signals where sequences are asked for, and the other way round.

        Raises:
            CacheError: naming the first key.
        """
        for number in np.unique(entries["segment"]).tolist():
            if self._segments[number].manifest.signals != signals:
                key = bytes(entries["key"][entries["segment"] == number][0]).hex()[:12]
                found, cure = ("a sequence", "TeacherCache") if signals else ("a signal", "TeacherCache.signals")
                raise CacheError(f"key {key} names {found}, which is read by other functions: ask {cure} for it")

    def tokens(self, number: int, *, row: int, length: int) -> NDArray[np.int32]:
        """The first `length` tokens of one sequence; raises like `read`."""
        with self.disk_errors():
            return self._segments[number].prefix(row, length=length)

    def row_ids(self, entries: Table) -> NDArray[np.uint64]:
        """The id of the row of each index entry, which it keeps wherever it moves; raises like `read`."""
        ids = np.zeros(len(entries), dtype=np.uint64)
        for number in np.unique(entries["segment"]).tolist():
            here = np.flatnonzero(entries["segment"] == number)
            with self.disk_errors():
                ids[here] = self._segments[number].row_ids(entries["row"][here])
        return ids

    def set_aside(self, error: DamagedObject) -> None:
        """Stop using a damaged segment: its rows count as missing.

        Bytes that were wrong in two reads also leave a marker for others. An object that is merely gone may come back
        (a network file system shows new files late), so the next refresh looks again.
        """
        with self.lock:
            self._warn(error)
            number = self._numbers.pop(error.segment, None)
            if number is not None:
                self.index.drop(number)
            if not error.reason.startswith(ABSENT):
                self._aside.add(error.segment)
                self._mark(error)

    def sound(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask until no damaged segment is met; each one met is set aside first.

        One that is gone may have been replaced by others, which are looked for before its rows count as missing.
        """
        gone: set[str] = set()
        with self.lock:
            while True:
                try:
                    return ask()
                except DamagedObject as error:
                    self.set_aside(error)
                    if error.reason.startswith(ABSENT) and error.segment not in gone:
                        gone.add(error.segment)
                        self.refresh()

    def damages(self, prove: Prove | None = None) -> Iterator[tuple[int, list[Damage]]]:
        """Compare every object of every manifest with its digest, quarantined segments included; changes nothing.

        Yields (bytes compared, what is damaged) for one segment after the other. `prove` looks into those whose
        digests agree (`cache.upkeep.proof`).

        Raises:
            CacheError: for a manifest of another format or teacher, or a disk that cannot be read.
        """
        for uuid in sorted(self._listed("manifests")):
            yield self._damages(uuid, prove)

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn an I/O error, which is not damage, into a `CacheError`."""
        try:
            yield
        except OSError as error:
            place = error.filename or self.storage.place
            raise CacheError(f"{place}: cannot be read ({error.strerror}): check the disk") from error

    def _damages(self, uuid: str, prove: Prove | None) -> tuple[int, list[Damage]]:
        try:
            with self.disk_errors():
                manifest = read_manifest(self.storage, uuid, identity=self._identity)
        except DamagedObject as error:
            return 0, [Damage(error.segment, error.name, error.reason)]
        objects = {f"segments/{uuid}/{name}": info for name, info in manifest.objects.items()}
        found = []
        for name, info in {f"manifests/{uuid}.keys": manifest.keys, **objects}.items():
            # What is to be verified is the object itself, not a copy of it.
            self.storage.forget_copy(name)
            try:
                with self.disk_errors():
                    read_verified(self.storage, name, info, segment=uuid)
            except DamagedObject as error:
                found.append(Damage(error.segment, error.name, error.reason))
        if prove is not None and not found:
            try:
                with self.disk_errors():
                    prove(self.storage, manifest)
            except DamagedObject as error:
                found.append(Damage(error.segment, error.name, error.reason))
        return manifest.disk_bytes, found

    def _listed(self, folder: str) -> set[str]:
        """The segments that have a JSON object in this folder."""
        try:
            names = self.storage.names(folder)
        except OSError as error:
            raise CacheError(
                f"{self.storage.place}/{folder}: cannot be read ({error.strerror}): check runtime.cache_root"
            ) from error
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def _load(self, uuid: str) -> _Loaded | None:
        """A segment by its manifest; `None` for one that is damaged, which the user is warned of, or gone meanwhile."""
        try:
            with self.disk_errors():
                try:
                    manifest = read_manifest(self.storage, uuid, identity=self._identity)
                except FileNotFoundError:
                    return None
                name = f"manifests/{uuid}.keys"
                return self._check(manifest, read_verified(self.storage, name, manifest.keys, segment=uuid))
        except DamagedObject as error:
            self._warn(error)
            return None

    def _check(self, manifest: Manifest, keys: bytes) -> _Loaded:
        """Sizes alone, so that a lost file is a miss at once; contents are checked when they are read."""
        segment = Segment(self.storage, manifest, chunks=self._chunks)
        for name in layouts(SegmentSize.of(manifest)):
            if not any(path.startswith(f"{name}/c/") for path in manifest.objects):
                raise DamagedObject(manifest.uuid, name, "not named by the manifest")
        with self.disk_errors():
            absent = segment.missing_object()
        if absent is not None:
            raise DamagedObject(manifest.uuid, absent, f"{ABSENT} or of another size")
        return _Loaded(segment, KeyObject(self.storage, manifest, keys), KeyTables(keys, manifest).prefixes())

    def _admit(self, found: Iterable[_Loaded | None]) -> None:
        loaded = [item for item in found if item is not None]
        parts = [(self._number(item.segment), item.keys, item.prefixes) for item in loaded]
        if parts:
            self.index.add(parts, segments=_facts(self._segments))

    def _number(self, segment: Segment) -> int:
        number = self._numbers[segment.manifest.uuid] = len(self._segments)
        self._arrived[segment.manifest.uuid] = segment.manifest.created_ns
        self._segments.append(segment)
        return number

    def _warn(self, error: DamagedObject) -> None:
        """Tell once a segment; what cannot be taken in is looked at again by every refresh."""
        if error.segment not in self._warned:
            self._warned.add(error.segment)
            _log.warning("%s: set aside, its rows count as missing: %s", self.storage.place, error)

    def _mark(self, error: DamagedObject) -> None:
        name = f"quarantine/{error.segment}.json"
        text = {"segment": error.segment, "object": error.name, "reason": error.reason, "time": time.time()}
        try:
            self.storage.create(name, json.dumps(text).encode())
        except FileExistsError:
            return
        except OSError as failure:
            _log.warning(
                "%s/%s: damaged, and cannot be marked as such (%s)", self.storage.place, name, failure.strerror
            )


def _facts(segments: Sequence[Segment]) -> Table:
    """What the index knows of each segment [SEGMENT_FACTS]."""
    facts = np.empty(len(segments), dtype=SEGMENT_FACTS)
    facts["age"][sorted(range(len(facts)), key=lambda number: segments[number].manifest.order)] = np.arange(len(facts))
    facts["rollout"] = [segment.manifest.rollout is not None for segment in segments]
    facts["signals"] = [segment.manifest.signals for segment in segments]
    return facts
