"""Whole columns of sealed segments as they are stored, and new segments put together from their rows.

Rows that move are never decoded: `topk-u8` loses a little each time it is encoded. Nothing is read unverified. A row
keeps its id (`row_id`), so that it can be known again wherever it stands.

Shapes: R sequences, N scored rows, K entries a row, G generations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.disk.columns import (
    IDS_BY_RANK,
    RANKS,
    ROW_ID,
    SegmentSize,
    check_column,
    layouts,
    row_id_base,
    rows_per_chunk,
    zarr_objects,
)
from cache.disk.gather import Numbers, ranges
from cache.disk.key_objects import ENTRY, GENERATION, Keys, KeyTables, Table, pack_keys
from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.packing import PackedSegment
from cache.disk.ranked_ids import by_rank, ids_of
from cache.disk.shards import ShardFile
from cache.disk.signal_columns import SIGNAL_COLUMNS
from cache.disk.storage import Objects, Storage
from cache.disk.verified import read_verified

Column = NDArray[Any]

AS_STORED = ("prompt_len", "origin", "policy_version", "sampled_from", "sampling_seed", *SIGNAL_COLUMNS)
"""One value a sequence, moved with it."""

_ANEW = ("finish", "k", "token_ids", "token_offsets", "row_offsets", ROW_ID)

_NO_ID, _NO_DRAW = -1, 0


class RawSegment:
    """A sealed segment as it lies on disk."""

    def __init__(self, storage: Objects, manifest: Manifest) -> None:
        self.manifest = manifest
        self.size = SegmentSize.of(manifest)
        self._storage = storage
        self._layouts = layouts(self.size)

    def tables(self) -> KeyTables:
        """The key object.

        Raises:
            DamagedObject: an object differs from the manifest.
            OSError: an object cannot be read.
        """
        name = f"manifests/{self.manifest.uuid}.keys"
        return KeyTables(
            read_verified(self._storage, name, self.manifest.keys, segment=self.manifest.uuid), self.manifest
        )

    def verify(self) -> None:
        """Compare every object of the segment with the manifest; raises like `tables`."""
        for path, info in self.manifest.objects.items():
            read_verified(self._storage, f"segments/{self.manifest.uuid}/{path}", info, segment=self.manifest.uuid)

    def holds(self, name: str) -> bool:
        """Whether the segment has this column."""
        return name in self._layouts

    def column(self, name: str) -> Column:
        """A whole column of one chunk: those per sequence, the offsets, the tokens, and one value a scored row.

        Raises like `tables`.
        """
        assert self._layouts[name].chunks == 1
        return check_column(self.manifest, name, self._shard(name).chunk(0))

    def row_ids(self, rows: Numbers) -> NDArray[np.uint64]:
        """The ids of these rows; raises like `tables`."""
        if self.size.moved:
            return self.column(ROW_ID)[rows]
        return rows.astype(np.uint64) + np.uint64(row_id_base(self.manifest.uuid))

    def copy_rows(self, name: str, flat: Numbers, target: Column) -> None:
        """Copy the scored rows `flat` of a column into `target`, which may be wider; raises like `tables`."""
        ranked = name == "topk_ids" and self.size.ranked
        stored = RANKS if ranked else name
        layout, shard = self._layouts[stored], self._shard(stored)
        numbers, inside = np.divmod(flat, layout.shape[0])
        for number in np.unique(numbers).tolist():
            here = numbers == number
            values = shard.chunk(number)[inside[here]]
            if ranked:
                values = ids_of(values, self.column(IDS_BY_RANK))
            if values.ndim == 1:
                target[here] = values
            else:
                target[here, : values.shape[1]] = values

    def _shard(self, name: str) -> ShardFile:
        path = f"{name}/c" + "/0" * len(self._layouts[name].shape)
        info = self.manifest.objects.get(path)
        if info is None:
            raise DamagedObject(self.manifest.uuid, path, "not named by the manifest")
        return ShardFile(self._storage, info, self._layouts[name], segment=self.manifest.uuid, name=path)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What moves out of one segment.

    `keys` [r] with `entries` [r] (as in the key object, with the finish to be written) are the sequences; `text` [r]
    marks those that move without their scored rows. `generations` [g] are as stored.
    """

    segment: RawSegment
    keys: Keys
    entries: Table
    text: Table
    generations: Table

    def in_stored_order(self) -> Piece:
        """The same piece, its rows in the order in which the segment holds them."""
        order = np.argsort(self.entries["row"], kind="stable")
        return Piece(self.segment, self.keys[order], self.entries[order], self.text[order], self.generations)


def pack_pieces(pieces: Sequence[Piece], *, uuid: str) -> PackedSegment:
    """The segment `uuid` of these pieces, which have one encoding and share no sequence; the oldest piece first.

    Raises:
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    parts = [piece.in_stored_order() for piece in pieces]
    rows = [part.entries["row"].astype(np.int64) for part in parts]
    stored = [part.segment.column("row_offsets") for part in parts]
    counts = [
        np.where(part.text, 0, offsets[at + 1] - offsets[at])
        for part, offsets, at in zip(parts, stored, rows, strict=True)
    ]
    entries = np.concatenate([part.entries for part in parts]).astype(ENTRY)
    entries["k"][np.concatenate([part.text for part in parts])] = 0
    entries["row"] = np.arange(len(entries))
    scored_rows = int(sum(count.sum() for count in counts))
    k = int(entries["k"].max())
    size = SegmentSize(
        rows=len(entries),
        scored_rows=scored_rows,
        tokens=int(entries["length"].sum(dtype=np.int64)),
        k=k,
        chunk_rows=rows_per_chunk(scored_rows, k=k),
        encoding=parts[0].segment.size.encoding if k else None,
        moved=True,
    )
    columns = _per_sequence(parts, rows, size=size, uuid=uuid)
    columns["finish"], columns["k"] = entries["finish"], entries["k"].astype("<i4")
    columns["token_offsets"], columns["row_offsets"] = _offsets(entries["length"]), _offsets(np.concatenate(counts))
    flat = [ranges(offsets[at], count) for offsets, at, count in zip(stored, rows, counts, strict=True)]
    columns |= _per_row(parts, flat, size=size)
    generations = np.concatenate([part.generations for part in parts]).astype(GENERATION)
    # Ranks are those of one segment, so ids move as they are and are ranked anew.
    stored_columns, size = by_rank(columns, size)
    return PackedSegment(
        objects=zarr_objects(stored_columns, size=size),
        keys=pack_keys(np.concatenate([part.keys for part in parts]), entries, generations),
        size=size,
        response_tokens=size.tokens - int(entries["prompt_len"].sum(dtype=np.int64)),
        generations=len(generations),
    )


def listed(storage: Storage, folder: str) -> set[str]:
    """The segments that have a JSON object in this folder: a manifest, or a marker.

    Raises:
        OSError: when the place cannot be read.
    """
    return {name.removesuffix(".json") for name in storage.names(folder) if name.endswith(".json")}


def live_segments(storage: Storage) -> list[str]:
    """The segments that answer questions: not set aside and not replaced; raises like `listed`."""
    # Whoever is seen as replaced has its replacement in the listing that follows.
    away = listed(storage, "quarantine") | listed(storage, "tombstones")
    return sorted(listed(storage, "manifests") - away)


def _per_sequence(
    parts: Sequence[Piece], rows: Sequence[Numbers], *, size: SegmentSize, uuid: str
) -> dict[str, Column]:
    """The columns that move as they are, the tokens, and the ids of the rows."""
    names = layouts(size)
    found = {
        name: np.concatenate([part.segment.column(name)[at] for part, at in zip(parts, rows, strict=True)])
        for name in AS_STORED
        if name in names
    }
    tokens, ids = [], []
    for part, at in zip(parts, rows, strict=True):
        offsets = part.segment.column("token_offsets")
        tokens.append(part.segment.column("token_ids")[ranges(offsets[at], offsets[at + 1] - offsets[at])])
        ids.append(part.segment.row_ids(at))
    found["token_ids"], found[ROW_ID] = np.concatenate(tokens), np.concatenate(ids)
    # A row that gave up its log-probabilities is another row: nobody who named the old one may be given this.
    text = np.concatenate([part.text for part in parts])
    found[ROW_ID][text] = np.flatnonzero(text).astype(np.uint64) + np.uint64(row_id_base(uuid))
    return found


def _per_row(parts: Sequence[Piece], flat: Sequence[Numbers], *, size: SegmentSize) -> dict[str, Column]:
    """The columns over scored rows. Draws narrower than the widest are filled up as in a segment newly written."""
    found = {}
    for name, layout in layouts(size).items():
        if name in (*AS_STORED, *_ANEW):
            continue
        filler = _NO_ID if name == "topk_ids" else _NO_DRAW
        column = np.full((size.scored_rows, *layout.shape[1:]), filler, dtype=layout.dtype)
        end = 0
        for part, at in zip(parts, flat, strict=True):
            start, end = end, end + len(at)
            if len(at):
                part.segment.copy_rows(name, at, column[start:end])
        found[name] = column
    return found


def _offsets(counts: Column) -> Numbers:
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))]).astype("<i8")
