"""Segments of an archive without the rows that were forgotten here.

What is left of a segment keeps its name, so that an archive that is imported twice is taken once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.disk.key_objects import Keys, Table
from cache.disk.manifests import Manifest
from cache.disk.publishing import manifest_of
from cache.disk.storage import Objects
from cache.disk.verified import read_verified
from cache.erasures import Erasures
from cache.upkeep.raw_columns import Piece, RawSegment, pack_pieces
from cache.upkeep.replacing import terms_of


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is taken of a segment: its manifest, its key object, and its other objects by path."""

    manifest: Manifest
    keys: bytes
    objects: Mapping[str, bytes]


class Sieve:
    """Knows over all segments of an archive which rows were forgotten; `rows` counts them."""

    def __init__(self, source: Objects, manifests: Sequence[Manifest], erasures: Erasures) -> None:
        """Look through all segments.

        Raises:
            DamagedObject: an object differs from its manifest.
            OSError: an object cannot be read.
        """
        self._source = source
        # A row and the generation that it answers may stand in different segments.
        gone = [_erased(RawSegment(source, each), erasures) for each in manifests] if erasures.names else []
        self._gone: Keys | None = np.concatenate(gone) if any(map(len, gone)) else None
        self.rows = sum(map(len, gone))

    def sift(self, manifest: Manifest) -> Sifted | None:
        """A segment without what was forgotten; None when nothing is left. Raises like the constructor."""
        segment = RawSegment(self._source, manifest)
        if self._gone is None:
            return self._whole(segment)
        tables = segment.tables()
        keep: Table = ~np.isin(tables.keys, self._gone)
        generations: Table = ~np.isin(tables.generations["sequence"], self._gone)
        if keep.all() and generations.all():
            return self._whole(segment)
        if not keep.any():
            return None
        text = np.zeros(int(keep.sum()), dtype=bool)
        pieces = [Piece(segment, tables.keys[keep], tables.entries[keep], text, tables.generations[generations])]
        packed = pack_pieces(pieces, uuid=manifest.uuid)
        left = manifest_of(packed, terms_of(manifest, pieces), name=manifest.uuid, created_ns=manifest.created_ns)
        return Sifted(left, packed.keys, packed.objects)

    def _whole(self, segment: RawSegment) -> Sifted:
        manifest = segment.manifest
        name = manifest.uuid
        objects = {
            path: read_verified(self._source, f"segments/{name}/{path}", info, segment=name)
            for path, info in manifest.objects.items()
        }
        keys = read_verified(self._source, f"manifests/{name}.keys", manifest.keys, segment=name)
        return Sifted(manifest, keys, objects)


def _erased(segment: RawSegment, erasures: Erasures) -> Keys:
    """The keys of a segment's rows that were forgotten."""
    tables = segment.tables()
    tokens, offsets = segment.column("token_ids"), segment.column("token_offsets").tolist()
    places = zip(tables.entries["row"].tolist(), tables.entries["prompt_len"].tolist(), strict=True)
    gone = [erasures.hold(tokens[offsets[row] : offsets[row + 1]], prompt_len=prompt_len) for row, prompt_len in places]
    erased: Keys = tables.keys[np.array(gone, dtype=bool)]
    return erased
