"""A limit on what all teachers below a cache root take, and who goes first when it is passed."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.disk.directory import DESCRIPTION, FINGERPRINT
from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.roots import list_teachers, open_storage
from cache.disk.storage import Storage
from cache.failures import drop_failures
from cache.pinning import remove_pins
from cache.pins import PIN_DAYS, read_pins
from cache.upkeep.garbage import SILENT_S, collect_garbage, delete_segment, place_errors, work_in_progress
from cache.upkeep.raw_columns import listed
from configs.errors import CacheError

_NS = 1e9


@dataclass(frozen=True, slots=True)
class TeacherUse:
    """What a teacher takes, when it was last used (seconds since 1970), and why it stays (`None`: it may go)."""

    identity: str
    bytes: int
    used: float
    stays: str | None


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """Bytes below the root before and after, every teacher as it was before, and which of them went."""

    max_bytes: int
    bytes_before: int
    bytes_after: int
    teachers: tuple[TeacherUse, ...]
    evicted: tuple[str, ...]


def enforce_quota(
    root: Path | str, *, max_bytes: int, evict: bool, in_use: Collection[str] = (), pin_days: float = PIN_DAYS
) -> QuotaReport:
    """Hold all teachers below a root to `max_bytes`.

    With `evict` the least recently used ones go, whole. One stays when it is `in_use` (digests), has a live pin, or
    somebody is writing to it or has claimed rows of it.

    Raises:
        CacheError: when the limit is passed and nothing may go, or not enough.
    """
    places = {digest: open_storage(root, digest, create=False) for digest in _teachers(root)}
    teachers = [_use(storage, digest, in_use=in_use, pin_days=pin_days) for digest, storage in places.items()]
    teachers.sort(key=lambda teacher: teacher.used)
    before = total = sum(teacher.bytes for teacher in teachers)
    evicted = []
    for teacher in teachers:
        if total <= max_bytes or not evict:
            break
        if teacher.stays is None:
            evict_teacher(places[teacher.identity], teacher.identity)
            total += _size(places[teacher.identity]) - teacher.bytes
            evicted.append(teacher.identity)
    if total > max_bytes:
        raise _over(root, teachers, total=total, max_bytes=max_bytes, evicted=evicted)
    return QuotaReport(max_bytes, before, total, tuple(teachers), tuple(evicted))


def evict_teacher(storage: Storage, identity: str) -> None:
    """Delete all that is stored of a teacher.

    What a writer commits meanwhile stays: only segments that were there when the eviction began go, each with its
    manifest first, so that at every moment what is left is a smaller cache and never half of one.

    Raises:
        CacheError: when the place refuses.
    """
    with place_errors(storage):
        for uuid in sorted(listed(storage, "manifests")):
            delete_segment(storage, uuid)
        for folder in ("tombstones", "quarantine"):
            for uuid in listed(storage, folder) - listed(storage, "manifests"):
                storage.delete(f"{folder}/{uuid}.json")
        drop_failures(storage)
        remove_pins(storage, [pin.view for pin in read_pins(storage)])
        collect_garbage(storage, identity=identity, dry_run=False)
        if not storage.names("manifests") and work_in_progress(storage) is None:
            # Whoever comes next writes them anew.
            storage.delete(FINGERPRINT)
            storage.delete(DESCRIPTION)


def _teachers(root: Path | str) -> list[str]:
    try:
        return list_teachers(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"{root}: cannot be read ({error.strerror or error}): check runtime.cache_root") from error


def _use(storage: Storage, identity: str, *, in_use: Collection[str], pin_days: float) -> TeacherUse:
    with place_errors(storage):
        pins = read_pins(storage)
        stays = "in use" if identity in in_use else None
        if stays is None and any(pin.live(days=pin_days) for pin in pins):
            stays = "pinned by a view"
        stays = stays or work_in_progress(storage, silent_s=SILENT_S)
        used = max([_newest(storage, identity), *(pin.used for pin in pins)])
        return TeacherUse(identity, _size(storage), used, stays)


def _newest(storage: Storage, identity: str) -> float:
    """When the newest segment came, at the latest now (its clock may have been ahead); 0 without any."""
    newest = 0.0
    for uuid in listed(storage, "manifests"):
        with suppress(DamagedObject, FileNotFoundError):
            newest = max(newest, read_manifest(storage, uuid, identity=identity).created_ns / _NS)
    return min(newest, time.time())


def _size(storage: Storage) -> int:
    return sum(storage.sizes("").values())


def _over(
    root: Path | str, teachers: Sequence[TeacherUse], *, total: int, max_bytes: int, evicted: Collection[str]
) -> CacheError:
    left = [teacher for teacher in teachers if teacher.identity not in evicted]
    lines = [f"{root}: {total:,} bytes, over the limit of {max_bytes:,}"]
    if evicted:
        lines.append(f"evicted {', '.join(identity[:12] for identity in sorted(evicted))}")
    may_go = sum(teacher.bytes for teacher in left if teacher.stays is None)
    for teacher in left:
        day = time.strftime("%Y-%m-%d", time.gmtime(teacher.used))
        why = f"stays: {teacher.stays}" if teacher.stays else "may go"
        lines.append(f"{teacher.identity[:12]} {teacher.bytes:,} bytes, last used {day}, {why}")
    cure = f"evict ({may_go:,} bytes may go) or raise the limit" if may_go else "raise the limit or remove pins"
    return CacheError("; ".join(lines) + f": {cure}")
