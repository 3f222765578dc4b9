"""A limit on what students' rollouts take in the cache of their teacher: the oldest go first.

A rollout can be written and scored again, what a fill asked for was bought to be kept: so rollouts have a limit of
their own, and nothing here touches a segment of a fill. A segment that goes is first marked as replaced by nothing,
after which it answers no more questions. It is deleted when the grace of its readers is over, unless a live view reads
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cache.disk.manifests import DamagedObject, Manifest, read_manifest
from cache.disk.storage import Storage
from cache.pins import PIN_DAYS, keepers, read_pins
from cache.upkeep.garbage import GRACE_S, collect_replaced, place_errors
from cache.upkeep.raw_columns import RawSegment, listed, live_segments
from cache.upkeep.replacing import replace_segments


@dataclass(frozen=True, slots=True)
class RolloutQuotaReport:
    """What rollouts of a teacher took before and take now, in bytes, and which segments went.

    `retired` segments answer no more questions since this call, `deleted` ones left the disk. `waiting` ones answer
    nothing either and are still on disk, with `waiting_bytes`: for the grace of readers, or because a live view reads
    them. `pinned` ones would have gone had no live view read them.
    """

    identity: str
    max_bytes: int
    bytes_before: int
    bytes_after: int
    retired: tuple[str, ...]
    deleted: tuple[str, ...]
    waiting: tuple[str, ...]
    waiting_bytes: int
    pinned: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the rollouts that are left are within the limit; else only pinned ones are left."""
        return self.bytes_after <= self.max_bytes


class KnownSegments:
    """Which segments students wrote, remembered from call to call: what a manifest says never changes."""

    def __init__(self) -> None:
        self._rollouts: dict[str, Manifest | None] = {}
        self._sizes: dict[str, int] = {}

    def size(self, manifest: Manifest) -> int:
        """The bytes of a segment; added up once, as a manifest names many objects."""
        if manifest.uuid not in self._sizes:
            self._sizes[manifest.uuid] = manifest.named_bytes
        return self._sizes[manifest.uuid]

    def rollouts(self, storage: Storage, uuids: Iterable[str], *, identity: str) -> list[Manifest]:
        """The manifests of those that students wrote; only what was never asked about is read.

        What is damaged or deleted meanwhile is left to the collection.

        Raises:
            OSError: when the place cannot be read.
        """
        found = []
        for uuid in sorted(uuids):
            if uuid not in self._rollouts:
                with suppress(DamagedObject, FileNotFoundError):
                    manifest = read_manifest(storage, uuid, identity=identity)
                    self._rollouts[uuid] = manifest if manifest.rollout is not None else None
            if (known := self._rollouts.get(uuid)) is not None:
                found.append(known)
        return found


def enforce_rollout_quota(
    storage: Storage,
    *,
    identity: str,
    max_bytes: int,
    grace_s: float = GRACE_S,
    pin_days: float = PIN_DAYS,
    known: KnownSegments | None = None,
) -> RolloutQuotaReport:
    """Hold the rollouts of the teacher of this digest to `max_bytes`, as far as live views allow.

    Whoever does so again and again gives what it has `known` since the first time: it then reads new manifests alone.

    Raises:
        CacheError: when the place cannot be read or changed, or is of another format or teacher.
    """
    known = known or KnownSegments()
    with place_errors(storage):
        rollouts = known.rollouts(storage, live_segments(storage), identity=identity)
        rollouts.sort(key=lambda item: item.order)
        before = left = sum(map(known.size, rollouts))
        pins, retired, pinned = read_pins(storage) if left > max_bytes else [], list[str](), list[str]()
        for manifest in rollouts:
            if left <= max_bytes:
                break
            if keepers(pins, manifest.uuid, days=pin_days):
                pinned.append(manifest.uuid)
                continue
            replaced, _ = replace_segments(storage, [RawSegment(storage, manifest)], [], reason="quota")
            # Otherwise another was faster, and it is gone all the same.
            left -= known.size(manifest)
            retired += [manifest.uuid] * replaced
        standing = listed(storage, "tombstones") & listed(storage, "manifests")
        marked = known.rollouts(storage, standing, identity=identity)
        if marked:
            collect_replaced(storage, [manifest.uuid for manifest in marked], grace_s=grace_s, pin_days=pin_days)
        there = listed(storage, "manifests")
        waiting = [manifest for manifest in marked if manifest.uuid in there]
    return RolloutQuotaReport(
        identity=identity,
        max_bytes=max_bytes,
        bytes_before=before,
        bytes_after=left,
        retired=tuple(retired),
        deleted=tuple(manifest.uuid for manifest in marked if manifest.uuid not in there),
        waiting=tuple(manifest.uuid for manifest in waiting),
        waiting_bytes=sum(manifest.named_bytes for manifest in waiting),
        pinned=tuple(pinned),
    )
