"""Garbage: what crashes, merges and old age leave behind in the place of one teacher, and how it goes.

Nothing is removed that somebody may still write or read. What is removed goes in an order in which a crash leaves only
what the next collection removes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cache.disk.owners import Owner
from cache.disk.storage import Storage
from cache.pins import PIN_DAYS, keepers, pin_objects, read_pins, view_of
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json
from configs.visible_text import first_line

GRACE_S = 3600.0
"""A segment that was replaced or set aside is kept so long for readers that opened the cache before."""

SILENT_S = 86_400.0
"""Work of an owner that cannot be looked at is given up after so long a silence."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that goes: its name (a folder ends with a slash), its bytes, and why nobody needs it."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What a collection removed from the place of a teacher, or with `dry_run` what it would remove.

    `kept` names replaced or damaged segments that a live pin keeps.
    """

    identity: str
    dry_run: bool
    removed: tuple[Garbage, ...]
    bytes: int
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Folders:
    """What stood in the folders. The order of the fields is the order in which they are listed, and that matters.

    A writer makes its staging, then its segment, the keys, the manifest, and removes its staging last. A segment that
    is listed had its staging made before. If that staging is not there when it is listed afterwards, its writer has
    either made the manifest, which the listing after that shows, or given the segment up. If it is there and its
    owner is gone, a manifest that was made is shown as well, and none will be made any more. So what no manifest of
    the last listing names, and no living staging, is nobody's. (Staging first would be wrong: a writer that begins
    after it was listed would lose its segment.) A segment whose manifest another collection removes meanwhile is
    garbage of the same kind.
    """

    segments: list[str]
    keys: list[str]
    staging: list[str]
    manifests: list[str]


class _Collector:
    """One collection. Methods yield names in the order in which they have to be deleted, with their reasons."""

    def __init__(self, storage: Storage, *, grace_s: float, silent_s: float, pin_days: float) -> None:
        self._storage = storage
        self._grace_s, self._silent_s, self._pin_days = grace_s, silent_s, pin_days
        self.kept: list[str] = []

    def everything(self) -> Iterator[tuple[str, str]]:
        yield from self._unreferenced(self._folders())
        yield from self.retired("tombstones", "replaced")
        yield from self.retired("quarantine", "damaged")
        yield from self._claims()
        yield from self._pins()
        for name, changed in sorted(self._storage.unfinished().items()):
            if self._silent(changed):
                yield name, "a crash left it half-written"

    def retired(self, folder: str, why: str, *, among: Collection[str] | None = None) -> Iterator[tuple[str, str]]:
        """Segments with a marker in this folder (`among` some), the manifest first and the marker last.

        So at no moment a segment counts that is not whole, and none is forgotten before all of it is gone.
        """
        pins = read_pins(self._storage)
        for marker in self._storage.names(folder):
            uuid = marker.removesuffix(".json")
            text = self._marker(f"{folder}/{marker}") if among is None or uuid in among else None
            if text is None or time.time() - float(text["time"]) <= self._grace_s:
                continue
            if keepers(pins, uuid, days=self._pin_days, moved=text.get("moved") is True):
                self.kept.append(uuid)
                continue
            for name in (f"manifests/{uuid}.json", f"manifests/{uuid}.keys", f"segments/{uuid}/"):
                yield name, why
            yield f"{folder}/{marker}", why

    def living_staging(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if not self._abandoned(f"staging/{name}", f"staging/{name}/owner.json")}

    def living_claims(self) -> list[str]:
        names = [name for name in self._storage.names("claims") if name.endswith(".json")]
        return [name for name in names if not self._abandoned(f"claims/{name}", f"claims/{name}")]

    def _folders(self) -> _Folders:
        segments = self._storage.names("segments")
        keys = [name.removesuffix(".keys") for name in self._storage.names("manifests") if name.endswith(".keys")]
        staging = self._storage.names("staging")
        manifests = [name.removesuffix(".json") for name in self._storage.names("manifests") if name.endswith(".json")]
        return _Folders(segments, keys, staging, manifests)

    def _unreferenced(self, folders: _Folders) -> Iterator[tuple[str, str]]:
        living = self.living_staging(folders.staging)
        dead = set(folders.staging) - living
        # A crash among these deletions leaves segments without staging, which are garbage all the same.
        for name in sorted(dead):
            yield f"staging/{name}/", "its writer is gone"
        for name in sorted(set(folders.keys) - set(folders.manifests) - living):
            yield f"manifests/{name}.keys", "no manifest beside it"
        for name in sorted(set(folders.segments) - set(folders.manifests) - living):
            yield f"segments/{name}/", "no manifest names it"

    def _claims(self) -> Iterator[tuple[str, str]]:
        names = self._storage.names("claims")
        noted = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        for claim in sorted({name.partition(".")[0] for name in names}):
            base = f"claims/{claim}"
            if claim in noted and self._abandoned(f"{base}.json", f"{base}.json"):
                yield f"{base}.json", "its owner is gone"
                yield f"{base}.keys", "its owner is gone"
            elif claim not in noted and self._silent(self._storage.changed(f"{base}.keys")):
                yield f"{base}.keys", "names of a claim that was never made"

    def _pins(self) -> Iterator[tuple[str, str]]:
        pins = read_pins(self._storage)
        for pin in pins:
            if not pin.live(days=self._pin_days):
                for name in pin_objects(pin.view, names=self._storage.names("pins")):
                    yield name, "its view has not been used for a long time"
        pinned = {pin.view for pin in pins}
        for name in self._storage.names("pins"):
            view = view_of(name)
            if view is not None and view not in pinned and self._silent(self._storage.changed(f"pins/{name}")):
                yield f"pins/{name}", "a view without its pin"

    def _abandoned(self, place: str, note: str) -> bool:
        """Whether the owner that a note names is gone; work that does not say whose it is has to be old."""
        try:
            data = self._storage.read(note)
        except (FileNotFoundError, UnreadableFileError):
            owner = None
        else:
            owner = _owner(data)
        if owner is None:
            return self._silent(self._storage.changed(place))
        return owner.gone(silent_s=self._silent_s)

    def _marker(self, name: str) -> dict[str, Any] | None:
        """What a marker says, its `time` in any case; `None` when it is gone."""
        try:
            text: Any = parse_json(self._storage.read(name), origin=name)
            marked = float(text["time"])
            if math.isfinite(marked):
                return {**text, "time": marked}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OverflowError):
            pass
        return {"time": self._storage.changed(name) or time.time()}

    def _silent(self, changed: float | None) -> bool:
        return changed is not None and time.time() - changed > self._silent_s


def collect_garbage(
    storage: Storage,
    *,
    identity: str,
    dry_run: bool,
    grace_s: float = GRACE_S,
    silent_s: float = SILENT_S,
    pin_days: float = PIN_DAYS,
) -> GarbageReport:
    """Remove what nobody needs from the place of the teacher of this digest; a dry run changes nothing.

    Raises:
        CacheError: when the place cannot be read or changed.
    """
    with place_errors(storage):
        collector = _Collector(storage, grace_s=grace_s, silent_s=silent_s, pin_days=pin_days)
        sizes, removed = _Sizes(storage), dict[str, Garbage]()
        for name, why in collector.everything():
            size = sizes.of(name)
            if size is None or name in removed:
                continue
            removed[name] = Garbage(name, size, why)
            if not dry_run:
                _delete(storage, name)
    return GarbageReport(
        identity=identity,
        dry_run=dry_run,
        removed=tuple(removed.values()),
        bytes=sum(item.bytes for item in removed.values()),
        kept=tuple(collector.kept),
    )


def collect_replaced(storage: Storage, segments: Collection[str], *, grace_s: float, pin_days: float) -> None:
    """Remove those of these segments that were replaced long enough ago and that no live view needs.

    Raises:
        OSError: when the place refuses.
    """
    collector = _Collector(storage, grace_s=grace_s, silent_s=SILENT_S, pin_days=pin_days)
    for name, _ in collector.retired("tombstones", "replaced", among=segments):
        _delete(storage, name)


def delete_segment(storage: Storage, uuid: str) -> None:
    """Delete a segment in the order in which a crash leaves nothing that counts: manifest, keys, objects.

    Raises:
        OSError: when the place refuses.
    """
    for name in (f"manifests/{uuid}.json", f"manifests/{uuid}.keys", f"segments/{uuid}/"):
        _delete(storage, name)


def work_in_progress(storage: Storage, *, silent_s: float = SILENT_S) -> str | None:
    """Why somebody is at work here: a segment under way or a claim whose owner may live; `None` when nobody is.

    Raises:
        OSError: when the place cannot be read.
    """
    collector = _Collector(storage, grace_s=0.0, silent_s=silent_s, pin_days=0.0)
    if collector.living_staging(storage.names("staging")):
        return "being written"
    return "rows are claimed" if collector.living_claims() else None


@contextmanager
def place_errors(storage: Storage) -> Iterator[None]:
    """Turn an I/O error into a `CacheError` that names the place."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise CacheError(
            f"{error.filename or storage.place}: {reason}: check the disk and the permissions of the cache"
        ) from error


def _delete(storage: Storage, name: str) -> None:
    if name.endswith("/"):
        storage.delete_folder(name.rstrip("/"))
    else:
        storage.delete(name)


class _Sizes:
    """Bytes of what is there, each folder listed once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._names: dict[str, set[str]] = {}
        self._sizes: dict[str, Mapping[str, int]] = {}

    def of(self, name: str) -> int | None:
        """Bytes of an object, or with a slash at the end of a folder; `None` when it is not there."""
        folder, _, last = name.rstrip("/").rpartition("/")
        if not name.endswith("/"):
            if folder not in self._sizes:
                self._sizes[folder] = self._storage.sizes(folder)
            return self._sizes[folder].get(last)
        if folder not in self._names:
            self._names[folder] = set(self._storage.names(folder))
        return sum(self._storage.sizes(name.rstrip("/")).values()) if last in self._names[folder] else None


def _owner(data: bytes) -> Owner | None:
    """The owner that a note of staging is, or that a claim holds."""
    try:
        found = parse_json(data, origin="owner")
    except UnreadableFileError:
        return None
    return Owner.from_fields(found.get("owner", found) if isinstance(found, dict) else found)
