"""Segments made anew from others: `compact` merges small ones, `forget` leaves rows out for good.

What is replaced is marked and stays for readers that know it, until `cache.upkeep.garbage` removes it; what is
forgotten goes at once. Any number of both may run at the same time (`cache.upkeep.replacing`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from cache.committing import MAX_ROWS
from cache.disk.key_objects import KEY, KeyTables, Table, key_array, key_bytes
from cache.disk.manifests import DamagedObject, Manifest, read_manifest
from cache.disk.publishing import segments_under_way
from cache.disk.storage import Storage
from cache.pinning import remove_pins
from cache.pins import followed_segments, keepers, read_pins
from cache.protocols import Progress
from cache.upkeep.garbage import SILENT_S, delete_segment, place_errors
from cache.upkeep.merging import Batch, MergePlan
from cache.upkeep.raw_columns import Piece, RawSegment, listed, live_segments
from cache.upkeep.replacing import replace_segments


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What a compaction did. `merged` is (new segment or `None` if nothing was left, the segments it replaces).

    `dropped` rows and `dropped_generations` had been superseded; of `thinned` rows the text alone is left. `damaged`
    segments were left alone. Bytes are those of the replaced segments and of the new ones.
    """

    identity: str
    merged: tuple[tuple[str | None, tuple[str, ...]], ...]
    rows: int
    dropped: int
    dropped_generations: int
    thinned: int
    bytes_before: int
    bytes_after: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was forgotten: how many of the rows asked for were found, and in which segments.

    `deleted` segments are gone. `kept` ones are replaced but still on disk, because the views in `pinned_by` name them;
    `unpinned` are the views that lost their pin. `unreadable` segments may hold rows that nobody can tell of.
    `writers` counts others that were writing meanwhile: forget again when they are done.
    """

    identity: str
    rows: int
    generations: int
    deleted: tuple[str, ...]
    kept: tuple[str, ...]
    pinned_by: tuple[str, ...]
    unpinned: tuple[str, ...]
    unreadable: tuple[str, ...]
    writers: int


def compact(
    storage: Storage, *, identity: str, max_rows: int = MAX_ROWS, progress: Progress | None = None
) -> RewriteReport:
    """Merge small segments of one kind into segments of up to `max_rows` scored rows, without what is superseded.

    Rollouts are left alone: their quota works by the segment, and a fill's row must outlive them.
    No answer changes. The replaced segments stay until `collect_garbage` removes them.

    Raises:
        CacheError: when the place cannot be read or written, or is of another format or teacher.
    """
    damaged: set[str] = set()
    done: list[tuple[Batch, Manifest | None]] = []
    with place_errors(storage):
        while True:
            try:
                for batch in _planned(storage, identity=identity, skip=damaged, max_rows=max_rows, progress=progress):
                    uuids = [source.manifest.uuid for source in batch.sources]
                    moved = not (batch.dropped or batch.thinned)
                    # A fuller row is not the one that a view followed: what is dropped here nobody could find again.
                    if not (moved or followed_segments(storage, standing=live_segments(storage)).isdisjoint(uuids)):
                        continue
                    for segment in batch.relied_on:
                        segment.verify()
                    replaced, manifest = replace_segments(
                        storage, batch.sources, batch.pieces, reason="compact", moved=moved
                    )
                    if replaced:
                        done.append((batch, manifest))
                break
            except DamagedObject as error:
                # What was decided may rest on it: decide anew without.
                damaged.add(error.segment)
        # One that was deleted while we read it is not damaged.
        damaged &= set(live_segments(storage))
    return _report(identity, done, damaged)


def forget(
    storage: Storage,
    *,
    identity: str,
    keys: Collection[bytes],
    break_pins: bool = False,
    progress: Progress | None = None,
) -> ForgetReport:
    """Remove the sequences of these keys, what was drawn from them, and the generations they answer, for good.

    Segments that hold any are written anew without and deleted, unless a live pin names them: `break_pins` removes
    such pins. Damaged segments that hold any are deleted whole; their rows count as missing anyway. A file system or
    disk may keep deleted bytes, and other machines may keep local copies of objects.

    Raises:
        CacheError: when the place cannot be read or written, or is of another format or teacher.
    """
    with place_errors(storage):
        work = _Forgetting(storage, identity=identity, keys=keys, break_pins=break_pins)
        while work.round(progress):
            pass
        return work.report()


def _planned(
    storage: Storage, *, identity: str, skip: Collection[str], max_rows: int, progress: Progress | None
) -> Iterator[Batch]:
    segments = []
    for uuid in live_segments(storage):
        if uuid not in skip:
            with suppress(FileNotFoundError):  # deleted since it was listed
                manifest = read_manifest(storage, uuid, identity=identity)
                if manifest.rollout is None:
                    segments.append(RawSegment(storage, manifest))
    segments.sort(key=lambda segment: segment.manifest.order)
    plan, done = MergePlan(segments, max_rows=max_rows), 0
    for batch in plan.batches():
        yield batch
        done += batch.bytes
        if progress is not None:
            progress(done, plan.bytes)
    if progress is not None:
        progress(plan.bytes, plan.bytes)


def _report(identity: str, done: Sequence[tuple[Batch, Manifest | None]], damaged: Collection[str]) -> RewriteReport:
    new = [manifest for _, manifest in done if manifest is not None]
    return RewriteReport(
        identity=identity,
        merged=tuple(
            (None if manifest is None else manifest.uuid, tuple(source.manifest.uuid for source in batch.sources))
            for batch, manifest in done
        ),
        rows=sum(manifest.rows for manifest in new),
        dropped=sum(batch.dropped for batch, _ in done),
        dropped_generations=sum(batch.dropped_generations for batch, _ in done),
        thinned=sum(batch.thinned for batch, _ in done),
        bytes_before=sum(batch.bytes for batch, _ in done),
        bytes_after=sum(manifest.disk_bytes for manifest in new),
        damaged=tuple(sorted(damaged)),
    )


@dataclass(slots=True)
class _Found:
    """What was met so far, by segment."""

    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    pinned_by: set[str] = field(default_factory=set)
    unpinned: set[str] = field(default_factory=set)
    rows: set[bytes] = field(default_factory=set)
    generations: set[bytes] = field(default_factory=set)


class _Forgetting:
    """One erasure, in rounds: until none begins that finds a new segment."""

    def __init__(self, storage: Storage, *, identity: str, keys: Collection[bytes], break_pins: bool) -> None:
        self._storage, self._identity, self._break_pins = storage, identity, break_pins
        self._wanted = key_array(sorted(keys))
        self._seen: set[str] = set()
        self._found = _Found()

    def round(self, progress: Progress | None) -> bool:
        """Go through the segments that are new; whether there were any, after which others may have come."""
        fresh = sorted(listed(self._storage, "manifests") - self._seen)
        for done, uuid in enumerate(fresh):
            self._visit(uuid)
            if progress is not None:
                progress(done + 1, len(fresh))
        return bool(fresh)

    def report(self) -> ForgetReport:
        """What came of it."""
        found = self._found
        return ForgetReport(
            identity=self._identity,
            rows=len(found.rows),
            generations=len(found.generations),
            deleted=tuple(found.deleted),
            kept=tuple(found.kept),
            pinned_by=tuple(sorted(found.pinned_by)),
            unpinned=tuple(sorted(found.unpinned)),
            unreadable=tuple(found.unreadable),
            writers=segments_under_way(self._storage, silent_s=SILENT_S),
        )

    def _visit(self, uuid: str) -> None:
        """Rid one segment of the rows."""
        self._seen.add(uuid)
        aside = uuid in listed(self._storage, "quarantine")
        try:
            segment = RawSegment(self._storage, read_manifest(self._storage, uuid, identity=self._identity))
            tables = segment.tables()
            gone = self._forgotten(segment, tables)
        except FileNotFoundError:
            return
        except DamagedObject:
            if aside:
                self._remove(uuid)
            elif uuid in listed(self._storage, "manifests"):  # not deleted while we read it
                self._found.unreadable.append(uuid)
            return
        answers = np.isin(tables.generations["sequence"], np.concatenate([self._wanted, tables.keys[gone]]))
        if not gone.any() and not answers.any():
            return
        self._found.rows.update(key_bytes(tables.keys[gone]))
        self._found.generations.update(key_bytes(tables.generations["key"][answers]))
        if not aside and uuid not in listed(self._storage, "tombstones"):
            self._replace(segment, tables, keep=~gone, generations=tables.generations[~answers])
        # Should another have replaced it first, the next round finds what it was replaced by.
        self._remove(uuid)

    def _forgotten(self, segment: RawSegment, tables: KeyTables) -> Table:
        """Which sequences of a segment go."""
        gone: Table = np.isin(tables.keys, self._wanted)
        if segment.holds("sampled_from"):
            sources = np.ascontiguousarray(segment.column("sampled_from")).view(KEY).reshape(-1)
            gone |= np.isin(sources[tables.entries["row"]], self._wanted)
        return gone

    def _replace(self, segment: RawSegment, tables: KeyTables, *, keep: Table, generations: Table) -> None:
        text = np.zeros(int(keep.sum()), dtype=bool)
        pieces = [Piece(segment, tables.keys[keep], tables.entries[keep], text, generations)] if keep.any() else []
        try:
            replace_segments(self._storage, [segment], pieces, reason="forget")
        except DamagedObject:
            # Nothing of it can be kept.
            replace_segments(self._storage, [segment], [], reason="forget")

    def _remove(self, uuid: str) -> None:
        """Delete a segment with its markers, unless it is pinned."""
        views = {pin.view for pin in keepers(read_pins(self._storage), uuid)}
        if views and not self._break_pins:
            self._found.kept.append(uuid)
            self._found.pinned_by |= views
            return
        remove_pins(self._storage, views)
        self._found.unpinned |= views
        delete_segment(self._storage, uuid)
        for folder in ("tombstones", "quarantine"):
            self._storage.delete(f"{folder}/{uuid}.json")
        self._found.deleted.append(uuid)
