"""Which segments are merged, and what of each survives.

Merging must change no answer. The merged segment counts as one nanosecond older than its oldest source, so its rows
keep their place in the order of age as long as nothing that lies between the sources answers the same question; where
something does, the merge ends before it. (The nanosecond makes the copy win over what a crash leaves of a source.)

A row that a fuller or older one supersedes is dropped, unless a generation that is still needed points to it, or the
winner does not know its finish: then its text stays beside the generation, without log-probabilities, so that damage to
one segment never takes the text of another's generation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache.committing import TEXT_TOKENS_PER_ROW
from cache.disk.key_objects import KeyTables, Table
from cache.disk.spending import PREFIX
from cache.upkeep.raw_columns import Piece, RawSegment
from cache.upkeep.superseded import shared_rows

OUTPUT_BYTES = 2**30
"""Scored rows of a large K (whole vocabularies) are bounded by what they take in memory."""

_BYTES_PER_ENTRY = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments that become one. `pieces` is what survives of each; `dropped` rows and entries do not.

    `thinned` counts rows of which the text survives, `relied_on` are other segments that answer for what goes.
    """

    sources: tuple[RawSegment, ...]
    pieces: tuple[Piece, ...]
    rows: int
    dropped: int
    dropped_generations: int
    thinned: int
    relied_on: tuple[RawSegment, ...]

    @property
    def bytes(self) -> int:
        """What the sources take on disk."""
        return sum(source.manifest.disk_bytes for source in self.sources)

    @property
    def worthwhile(self) -> bool:
        """Whether several become one, or half the rows of one are superseded."""
        return len(self.sources) > 1 or 2 * (self.dropped + self.thinned) >= max(self.rows, 1)


class MergePlan:
    """What to merge among these segments, which are ordered by age."""

    def __init__(self, segments: Sequence[RawSegment], *, max_rows: int) -> None:
        """Read all key objects.

        Raises:
            DamagedObject: an object differs from its manifest.
            OSError: an object cannot be read.
        """
        self._segments = segments
        self._max_rows = max_rows
        rows, entries = shared_rows(len(segments), self._tables)
        self._rows, self._entries = _OfSegment(rows), _OfSegment(entries)
        self._contested = _OfSegment(_contested(entries))
        losers = rows["segment"][rows["winner"] != rows["segment"]]
        self._losers = np.bincount(losers, minlength=len(segments))
        self._planned = [run for group in self._groups() for run in self._runs(group)]

    @property
    def bytes(self) -> int:
        """What all segments that are looked at take on disk."""
        return sum(self._segments[number].manifest.disk_bytes for run in self._planned for number in run)

    def batches(self) -> Iterator[Batch]:
        """What is worth merging, each batch decided when it is asked for; raises like the constructor."""
        for run in self._planned:
            batch = self._decide(run)
            if batch.worthwhile:
                yield batch

    def _groups(self) -> list[list[int]]:
        """Segments that may become one, each group in order of age."""
        groups: dict[str, list[int]] = {}
        for number, segment in enumerate(self._segments):
            manifest = segment.manifest
            # Draws of several widths fit one segment; log-probabilities of several k do not.
            k = 0 if manifest.encoding == "sampled" else manifest.k
            # What was spent adds up where it is known of all; a sum with holes would credit too little to some rows.
            known = [name for name in manifest.provenance if name.startswith(PREFIX)]
            terms = (manifest.encoding, k, manifest.vocab, manifest.licence, manifest.origin, sorted(known))
            groups.setdefault(json.dumps(terms, sort_keys=True), []).append(number)
        return list(groups.values())

    def _runs(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive segments of a group that fit one output and may trade places with what lies between them."""
        run: list[int] = []
        filled = 0.0
        for number in numbers:
            size = self._filled(number)
            if size >= 0.5 and 2 * self._losers[number] < self._segments[number].manifest.rows:
                continue
            if run and (filled + size > 1 or self._trades_places(run, number)):
                yield run
                run, filled = [], 0.0
            run.append(number)
            filled += size
        if run:
            yield run

    def _filled(self, number: int) -> float:
        """How much of an output a segment takes."""
        manifest = self._segments[number].manifest
        limit = min(self._max_rows, max(1, OUTPUT_BYTES // (_BYTES_PER_ENTRY * max(manifest.k, 1))))
        return (manifest.scored_rows + manifest.tokens // TEXT_TOKENS_PER_ROW) / limit

    def _trades_places(self, run: Sequence[int], number: int) -> bool:
        """Whether a segment that joins a run passes one that answers the same question."""

        def passed(others: Table) -> Table:
            return (others > run[0]) & (others < number) & ~np.isin(others, run)

        rows = self._rows.of(number)
        # A loser with log-probabilities is dropped or gives them up; one that keeps what it has must stay younger.
        stays = (rows["winner_k"] == rows["k"]) & ((rows["k"] == 0) | (self._encoding(number) == "sampled"))
        if passed(rows["winner"][stays]).any():
            return True
        mine = self._contested.of(number)["key"]
        return len(mine) > 0 and bool(passed(self._contested.rows["segment"][self._contested.named(mine)]).any())

    def _decide(self, batch: Sequence[int]) -> Batch:
        """What survives of a batch."""
        tables = {number: self._tables(number) for number in batch}
        generations, relied_on = self._surviving_generations(batch, tables)
        needed = np.concatenate([found["sequence"] for found in generations.values()])
        rows = np.concatenate([self._rows.of(number) for number in batch])
        fate = _fates(
            rows, batch=batch, needed=np.isin(rows["key"], needed), text=self._encoding(batch[0]) != "sampled"
        )
        gone = fate["goes"] & ~np.isin(rows["winner"], batch)
        relied_on |= set(rows["winner"][gone | fate["text"]].tolist()) - set(batch)
        pieces = []
        for number in batch:
            here = rows["segment"] == number
            pieces.append(self._piece(number, tables[number], rows[here], fate[here], generations[number]))
        entries = sum(segment.manifest.generations for segment in (self._segments[number] for number in batch))
        return Batch(
            sources=tuple(self._segments[number] for number in batch),
            # Of a source that lost all its rows to another of the batch the generations may be left.
            pieces=tuple(pieces) if any(len(piece.keys) for piece in pieces) else (),
            rows=sum(len(tables[number].keys) for number in batch),
            dropped=int(fate["goes"].sum()),
            dropped_generations=entries - sum(len(found) for found in generations.values()),
            thinned=int(fate["text"].sum()),
            relied_on=tuple(self._segments[number] for number in sorted(relied_on)),
        )

    def _surviving_generations(
        self, batch: Sequence[int], tables: dict[int, KeyTables]
    ) -> tuple[dict[int, Table], set[int]]:
        """The entries of each segment that are needed, and the other segments that hold what covers the rest."""
        found, keepers = {}, set[int]()
        for number in batch:
            keep = np.ones(len(tables[number].generations), dtype=bool)
            covered = self._entries.of(number)
            covered = covered[covered["keeper"] >= 0]
            keep[covered["position"]] = False
            keepers |= set(covered["keeper"].tolist())
            found[number] = tables[number].generations[keep]
        return found, keepers - set(batch)

    def _piece(self, number: int, tables: KeyTables, rows: Table, fate: Table, generations: Table) -> Piece:
        """What survives of one segment; `rows` are its shared ones, with the `fate` of each."""
        keep = np.ones(len(tables.keys), dtype=bool)
        text = np.zeros(len(tables.keys), dtype=bool)
        entries = tables.entries.copy()
        keep[rows["position"]], text[rows["position"]] = ~fate["goes"], fate["text"]
        entries["finish"][rows["position"]] = fate["finish"]
        return Piece(self._segments[number], tables.keys[keep], entries[keep], text[keep], generations)

    def _encoding(self, number: int) -> str | None:
        return self._segments[number].manifest.encoding

    @property
    def _tables(self) -> Callable[[int], KeyTables]:
        return lambda number: self._segments[number].tables()


class _OfSegment:
    """A table with a row for each place, looked up by segment."""

    def __init__(self, rows: Table) -> None:
        self.rows: Table = rows[np.argsort(rows["segment"], kind="stable")]

    def of(self, number: int) -> Table:
        """The rows of one segment."""
        low, high = np.searchsorted(self.rows["segment"], [number, number + 1])
        found: Table = self.rows[low:high]
        return found

    def named(self, keys: Table) -> Table:
        """Which rows have one of these keys."""
        found: Table = np.isin(self.rows["key"], keys)
        return found


FATE = np.dtype([("goes", "?"), ("text", "?"), ("finish", "u1")])


def _fates(rows: Table, *, batch: Sequence[int], needed: Table, text: bool) -> Table:
    """The fate [FATE] of the shared rows of a batch.

    Of each key one row survives at most, the best of the batch, with the smallest finish. It is the winner of all, or
    it is kept for a generation (`needed` [n]) or its finish alone, as text if its kind can be (`text`).
    """
    fate = np.zeros(len(rows), dtype=FATE)
    if not len(rows):
        return fate
    _, group = np.unique(rows["key"], return_inverse=True)
    order = np.lexsort((rows["segment"], -rows["k"], group))
    group = group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    best = order[starts]
    finish = np.minimum.reduceat(rows["finish"][order], starts)
    kept_for = np.logical_or.reduceat(needed[order], starts)
    wins = np.isin(rows["winner"][best], batch)
    survives = wins | kept_for | (finish < rows["winner_finish"][best])
    fate["goes"] = True
    fate["goes"][best] = ~survives
    fate["text"][best] = survives & ~wins & (rows["k"][best] > 0) & text
    fate["finish"][best] = finish
    return fate


def _contested(entries: Table) -> Table:
    """The needed entries of generations that have several of them: which is asked for depends on their age."""
    needed = entries[entries["keeper"] < 0]
    _, group, counts = np.unique(needed["key"], return_inverse=True, return_counts=True)
    several: Table = needed[counts[group] > 1]
    return several
