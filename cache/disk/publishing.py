"""Making a segment permanent: staging with an owner, then the arrays, the keys and last the manifest.

Used by whoever has the bytes of a segment: a writer of new records, and whatever rewrites old ones.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cache.disk.failpoints import failpoint
from cache.disk.manifests import FORMAT, RANKED_FORMAT, Manifest, ObjectInfo
from cache.disk.owners import HEARTBEAT_S, Owner
from cache.disk.packing import PackedSegment
from cache.disk.storage import Storage
from configs.regular_files import UnreadableFileError


@dataclass(frozen=True, slots=True)
class SegmentTerms:
    """What a manifest says beside the numbers of its segment; `rollout` as there."""

    identity: str
    vocab: int
    provenance: Mapping[str, str]
    licence: str | None
    rollout: str | None = None


class Staging:
    """The place of a segment that is being written. It says whose work it is, so that `gc` leaves it alone."""

    def __init__(self, storage: Storage) -> None:
        """Make the place.

        Raises:
            OSError: when it cannot be made.
        """
        self.name = str(uuid.uuid4())
        self._storage = storage
        self._owner = Owner.here()
        storage.create(self._owner_name, self._owner.to_json())
        failpoint("segment-after-staging")

    def beat(self) -> None:
        """Say now and then that the owner lives."""
        if time.time() - self._owner.heartbeat >= HEARTBEAT_S:
            self._owner = self._owner.heard()
            # A heartbeat that cannot be written is not a reason to lose what was collected: the commit will show.
            with suppress(OSError):
                self._storage.replace(self._owner_name, self._owner.to_json())

    def publish(self, packed: PackedSegment, terms: SegmentTerms, *, created_ns: int | None = None) -> Manifest:
        """Make the segment count; on stable storage when this returns. `created_ns` is now unless it is given.

        Raises:
            OSError: when the place refuses. The segment does not count then.
        """
        self._storage.create_segment(self.name, packed.objects)
        self._storage.create(f"manifests/{self.name}.keys", packed.keys)
        manifest = manifest_of(
            packed, terms, name=self.name, created_ns=time.time_ns() if created_ns is None else created_ns
        )
        failpoint("segment-before-manifest")
        self._storage.create(f"manifests/{self.name}.json", manifest.to_json())
        failpoint("segment-after-manifest")
        return manifest

    def drop(self) -> None:
        """Leave the place; what cannot be removed now is garbage that `gc` knows by its owner."""
        with suppress(OSError):
            self._storage.delete_folder(f"staging/{self.name}")

    @property
    def _owner_name(self) -> str:
        return f"staging/{self.name}/owner.json"


def segments_under_way(storage: Storage, *, silent_s: float) -> int:
    """How many segments are being written by owners that may live.

    Raises:
        OSError: when the place cannot be read.
    """
    count = 0
    for name in storage.names("staging"):
        with suppress(FileNotFoundError, UnreadableFileError):  # done since it was listed, or nobody's
            owner = Owner.from_json(storage.read(f"staging/{name}/owner.json"))
            count += owner is not None and not owner.gone(silent_s=silent_s)
    return count


def manifest_of(packed: PackedSegment, terms: SegmentTerms, *, name: str, created_ns: int) -> Manifest:
    """The manifest of a segment of this name."""
    size = packed.size
    return Manifest(
        uuid=name,
        identity=terms.identity,
        created_ns=created_ns,
        rows=size.rows,
        scored_rows=size.scored_rows,
        tokens=size.tokens,
        response_tokens=packed.response_tokens,
        generations=packed.generations,
        vocab=terms.vocab,
        k=size.k,
        encoding=size.encoding,
        chunk_rows=size.chunk_rows,
        keys=ObjectInfo.of(packed.keys),
        objects={path: ObjectInfo.of(data) for path, data in packed.objects.items()},
        provenance={**terms.provenance, **packed.measured},
        licence=terms.licence,
        rollout=terms.rollout,
        format=RANKED_FORMAT if size.ranked else FORMAT,
    )
