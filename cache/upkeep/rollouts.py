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


def enforce_rollout_quota(
    storage: Storage, *, identity: str, max_bytes: int, grace_s: float = GRACE_S, pin_days: float = PIN_DAYS
) -> RolloutQuotaReport:
    """Hold the rollouts of the teacher of this digest to `max_bytes`, as far as live views allow.

    Raises:
        CacheError: when the place cannot be read or changed, or is of another format or teacher.
    """
    with place_errors(storage):
        rollouts = sorted(_rollouts(storage, live_segments(storage), identity=identity), key=lambda item: item.order)
        before = left = sum(manifest.named_bytes for manifest in rollouts)
        pins, retired, pinned = read_pins(storage), list[str](), list[str]()
        for manifest in rollouts:
            if left <= max_bytes:
                break
            if keepers(pins, manifest.uuid, days=pin_days):
                pinned.append(manifest.uuid)
                continue
            replaced, _ = replace_segments(storage, [RawSegment(storage, manifest)], [], reason="quota")
            # Otherwise another was faster, and it is gone all the same.
            left -= manifest.named_bytes
            retired += [manifest.uuid] * replaced
        marked = _rollouts(storage, listed(storage, "tombstones"), identity=identity)
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


def _rollouts(storage: Storage, uuids: Iterable[str], *, identity: str) -> list[Manifest]:
    """The manifests of those that students wrote. What is damaged or deleted meanwhile is left to the collection."""
    found = []
    for uuid in sorted(uuids):
        with suppress(DamagedObject, FileNotFoundError):
            manifest = read_manifest(storage, uuid, identity=identity)
            if manifest.rollout is not None:
                found.append(manifest)
    return found
