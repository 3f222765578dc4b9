"""Replacing segments by a new one that holds what is to be kept of them.

The new segment is published first, then the old ones are marked as replaced (`tombstones/<uuid>.json`), and only then
is anything deleted: a crash leaves rows twice and never not at all.

Several processes may do so at once. Whoever has published looks whether one of its sources was replaced or deleted
meanwhile and, if so, takes its own segment back; whoever forgets rows looks, after it has marked the old segments, for
new ones that hold the rows. One of the two always sees the other, so no merge brings back what was forgotten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from cache.disk.failpoints import failpoint
from cache.disk.manifests import Manifest
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.signal_encoding import MeasuredError, errors_together
from cache.disk.spending import Spent, together
from cache.disk.storage import Storage
from cache.pinning import follow_rows
from cache.upkeep.garbage import delete_segment
from cache.upkeep.raw_columns import Piece, RawSegment, listed, pack_pieces


def replace_segments(
    storage: Storage, sources: Sequence[RawSegment], pieces: Sequence[Piece], *, reason: str, moved: bool = False
) -> tuple[bool, Manifest | None]:
    """Publish the pieces, if there are any, as one segment and mark the sources as replaced.

    `moved` says that every row of the sources stands in the new segment, where a view finds it by its id.

    Returns whether the sources are replaced now, and by which segment. They are not when somebody else replaced or
    deleted one of them meanwhile.

    Raises:
        DamagedObject: an object differs from its manifest.
        OSError: the place refuses. The sources count as before.
    """
    manifest = _publish(storage, sources, pieces) if pieces else None
    if not all(_stands(storage, [source.manifest.uuid for source in sources])):
        if manifest is not None:
            delete_segment(storage, manifest.uuid)
        return False, None
    uuids = [source.manifest.uuid for source in sources]
    if moved and manifest is not None:
        follow_rows(storage, sources=uuids, to=manifest.uuid)
    failpoint("rewrite-before-tombstones")
    for source in sources:
        uuid = source.manifest.uuid
        text = {
            "segment": uuid,
            "replaced_by": manifest and manifest.uuid,
            "reason": reason,
            "moved": moved,
            "time": time.time(),
        }
        with suppress(FileExistsError):  # another came to the same end at the same time
            storage.create(f"tombstones/{uuid}.json", json.dumps(text).encode())
    if moved and manifest is not None:
        follow_rows(storage, sources=uuids, to=manifest.uuid)
    failpoint("rewrite-before-delete")
    return True, manifest


def terms_of(oldest: Manifest, pieces: Sequence[Piece]) -> SegmentTerms:
    """What the manifest says of a segment that is put together of these pieces, the oldest of which is of `oldest`."""
    provenance = oldest.origin | _spent(pieces).provenance() | _error(pieces).provenance()
    return SegmentTerms(oldest.identity, oldest.vocab, provenance, oldest.licence, oldest.rollout)


def _stands(storage: Storage, uuids: Sequence[str]) -> list[bool]:
    """Which segments are neither replaced nor deleted."""
    # A mark is deleted after its manifest: what is deleted between the two listings is missing in the second.
    replaced = listed(storage, "tombstones")
    there = listed(storage, "manifests")
    return [uuid in there and uuid not in replaced for uuid in uuids]


def _publish(storage: Storage, sources: Sequence[RawSegment], pieces: Sequence[Piece]) -> Manifest:
    oldest = min((source.manifest for source in sources), key=lambda manifest: manifest.order)
    staging = Staging(storage)
    try:
        packed = pack_pieces(pieces, uuid=staging.name)
        # One nanosecond older, so that a row that a crash leaves in a source as well is the younger of the two.
        return staging.publish(packed, terms_of(oldest, pieces), created_ns=max(oldest.created_ns - 1, 0))
    finally:
        staging.drop()


def _error(pieces: Sequence[Piece]) -> MeasuredError:
    """What encoding once lost of the values that move, which are not encoded again."""
    manifests = [piece.segment.manifest for piece in pieces]
    shares = [len(piece.keys) / max(manifest.rows, 1) for piece, manifest in zip(pieces, manifests, strict=True)]
    return errors_together(
        (MeasuredError.of(manifest.provenance), manifest.scored_rows * share)
        for manifest, share in zip(manifests, shares, strict=True)
    )


def _spent(pieces: Sequence[Piece]) -> Spent:
    """What the rows that move took to get: of each segment the share of its tokens that goes on."""
    return together(
        Spent.of(piece.segment.manifest.provenance).share(
            int(piece.entries["length"].sum(dtype=np.int64)), of=piece.segment.manifest.tokens
        )
        for piece in pieces
    )
