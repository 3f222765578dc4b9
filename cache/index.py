"""Which row answers which key, over the key objects of all segments.

In memory stand the first eight bytes of every key, sorted, and where the key lies (segment and position): 16 bytes a
sequence and 16 a generation, so that ten million records open in seconds. Everything else is read from the key objects
when it is asked for, the whole key included. The index follows from the manifests and is never authoritative: whoever
reads a row checks it against its manifest.

Among rows of one sequence the fullest wins: the largest k (0 for text alone), then one that no student wrote, then the
oldest segment. Whoever needs no more than k is given a fill's row that has so much before any rollout's: rollouts come
and go, and a view of a fill's rows must stay the same view. Among rows of one generation each request gets the oldest
that reaches far enough, so that an answer, once given, does not change because a longer one was bought later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.disk.key_objects import (
    FINISHES,
    KEY,
    KeyObject,
    KeyPrefixes,
    Keys,
    Prefixes,
    RowNumbers,
    Table,
    key_prefixes,
)

SEGMENT_FACTS = np.dtype([("age", "<i8"), ("rollout", "?"), ("signals", "?")])
"""What the index knows of a segment: its rank by age (the oldest 0), whether a student wrote it, and whether its rows
are signals, whose keys nothing else has."""

SEQUENCE_ROW = np.dtype(
    [
        ("key", KEY),
        ("segment", "<i4"),
        ("row", "<i8"),
        ("k", "<i8"),
        ("length", "<i8"),
        ("prompt_len", "<i8"),
        ("finish", "u1"),
    ]
)
"""Where a sequence stands; `segment` is -1 where there is none."""

GENERATION_ROW = np.dtype(
    [("key", KEY), ("sequence", KEY), ("response_len", "<i8"), ("finish", "u1"), ("segment", "<i4")]
)

_STOPPED = FINISHES.index("stop")
_HALF = np.uint64(32)

Places = NDArray[np.uint64]
"""`segment << 32 | position in its key object`."""


@dataclass(slots=True)
class _Fence:
    """The first bytes of all keys in ascending order, and the place of each."""

    prefixes: Prefixes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    places: Places = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def add(self, parts: Sequence[tuple[int, Prefixes]]) -> None:
        """Take in the keys of further segments."""
        prefixes = np.concatenate([prefixes for _, prefixes in parts])
        places = np.concatenate([_places(number, len(prefixes)) for number, prefixes in parts])
        # Each part is sorted already, which the stable sort makes use of.
        order = np.argsort(prefixes, kind="stable")
        prefixes, places = prefixes[order], places[order]
        if len(self.prefixes):
            at = np.searchsorted(self.prefixes, prefixes, side="right")
            prefixes, places = np.insert(self.prefixes, at, prefixes), np.insert(self.places, at, places)
        self.prefixes, self.places = prefixes, places

    def drop(self, number: int) -> None:
        """Forget the keys of a segment."""
        keep = self.places >> _HALF != number
        self.prefixes, self.places = self.prefixes[keep], self.places[keep]

    def candidates(self, keys: Keys) -> tuple[RowNumbers, Places]:
        """(position in `keys`, place) of everything that begins like one of the keys, in the order of `keys`."""
        wanted = key_prefixes(keys)
        # Searching for sorted values walks the fence once instead of jumping about in it.
        order = np.argsort(wanted)
        low, high = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=np.int64)
        low[order] = np.searchsorted(self.prefixes, wanted[order], side="left")
        high[order] = np.searchsorted(self.prefixes, wanted[order], side="right")
        counts = high - low
        starts = np.repeat(low - (np.cumsum(counts) - counts), counts)
        asked = np.repeat(np.arange(len(wanted)), counts)
        return asked, self.places[starts + np.arange(len(asked))]


class KeyIndex:
    """The winners among the segments that were taken in."""

    def __init__(self) -> None:
        self._objects: dict[int, KeyObject] = {}
        self._segments: Table = np.empty(0, dtype=SEGMENT_FACTS)
        self._sequences = _Fence()
        self._generations = _Fence()

    def add(self, parts: Sequence[tuple[int, KeyObject, KeyPrefixes]], *, segments: Table) -> None:
        """Take in further segments by number; `segments` [SEGMENT_FACTS] is of all that have a number."""
        self._segments = segments
        if parts:
            self._objects |= {number: place for number, place, _ in parts}
            self._sequences.add([(number, prefixes.sequences) for number, _, prefixes in parts])
            self._generations.add([(number, prefixes.generations) for number, _, prefixes in parts])

    def drop(self, number: int) -> None:
        """Forget a segment."""
        if self._objects.pop(number, None) is not None:
            self._sequences.drop(number)
            self._generations.drop(number)

    def count(self, *, signals: bool = False) -> int:
        """How many different sequences there are, or signals of sequences.

        Raises:
            DamagedObject: a key object differs from its manifest.
            OSError: a key object cannot be read.
        """
        prefixes, places = self._of_kind(signals=signals)
        twice = np.zeros(len(prefixes), dtype=bool)
        twice[1:] = prefixes[1:] == prefixes[:-1]
        twice[:-1] |= twice[1:].copy()
        several = self._sequence_rows(places[twice])
        return len(prefixes) - len(several) + len(np.unique(several["key"]))

    def sample(self, count: int, *, seed: int, k: int) -> Keys:
        """Up to `count` keys of rows with at least `k` log-probabilities, drawn at random; raises like `count`."""
        _, places = self._of_kind(signals=False)
        order = np.random.default_rng(seed).permutation(len(places))
        found = np.empty(0, dtype=KEY)
        # Rows of another k are passed over, so more than `count` places may have to be looked at.
        for start in range(0, len(order), max(2 * count, 1)):
            rows = self._sequence_rows(places[order[start : start + 2 * count]])
            found = np.concatenate([found, rows["key"][rows["k"] >= k]])
            if len(np.unique(found)) >= count:
                break
        _, first = np.unique(found, return_index=True)
        return found[np.sort(first)][:count]

    def find_sequences(self, keys: Keys, *, k: int | None = None) -> Table:
        """The fullest row [SEQUENCE_ROW] of each key, a fill's first if it has at least `k`; raises like `count`."""
        asked, rows = self.find_rows(keys)
        found = np.zeros(len(keys), dtype=SEQUENCE_ROW)
        found["segment"] = -1
        if not len(rows):
            return found
        rollout = self._segments["rollout"][rows["segment"]]
        lacking = rollout | (rows["k"] < k) if k is not None else np.zeros(len(rows), dtype=bool)
        ranking = np.lexsort((self._segments["age"][rows["segment"]], rollout, -rows["k"], lacking, asked))
        asked, rows = asked[ranking], rows[ranking]
        first = np.flatnonzero(np.diff(asked, prepend=-1))
        winners = rows[first]
        winners["finish"] = np.minimum.reduceat(rows["finish"], first)
        found[asked[first]] = winners
        return found

    def find_rows(self, keys: Keys) -> tuple[RowNumbers, Table]:
        """All rows [SEQUENCE_ROW] of these keys, each after the position of its key in `keys`; raises like `count`."""
        asked, places = self._sequences.candidates(keys)
        rows = self._sequence_rows(places)
        same = rows["key"] == keys[asked]
        return asked[same], rows[same]

    def find_generations(self, keys: Keys, *, limits: NDArray[np.int64]) -> Table:
        """The oldest generation [GENERATION_ROW] of each key that serves its limit on new tokens; raises like `count`.

        One that stopped by itself serves every limit, another one those up to its own length.
        """
        asked, places = self._generations.candidates(keys)
        rows = self._generation_rows(places)
        serves = (rows["finish"] == _STOPPED) | (rows["response_len"] >= limits[asked])
        serves &= rows["key"] == keys[asked]
        asked, rows = asked[serves], rows[serves]
        ranking = np.lexsort((self._segments["age"][rows["segment"]], asked))
        asked, rows = asked[ranking], rows[ranking]
        first = np.flatnonzero(np.diff(asked, prepend=-1))
        found = np.zeros(len(keys), dtype=GENERATION_ROW)
        found["segment"] = -1
        found[asked[first]] = rows[first]
        return found

    def _of_kind(self, *, signals: bool) -> tuple[Prefixes, Places]:
        """The prefixes and places of sequences, or those of signals."""
        prefixes, places = self._sequences.prefixes, self._sequences.places
        if not len(places) or (self._segments["signals"] == signals).all():
            return prefixes, places
        here = self._segments["signals"][(places >> _HALF).astype(np.int64)] == signals
        return prefixes[here], places[here]

    def _sequence_rows(self, places: Places) -> Table:
        rows = np.empty(len(places), dtype=SEQUENCE_ROW)
        for number, here, positions in _by_segment(places):
            keys, entries = self._objects[number].sequences(positions)
            part = np.empty(len(here), dtype=SEQUENCE_ROW)
            part["key"], part["segment"] = keys, number
            for name in ("row", "k", "length", "prompt_len", "finish"):
                part[name] = entries[name]
            rows[here] = part
        return rows

    def _generation_rows(self, places: Places) -> Table:
        rows = np.empty(len(places), dtype=GENERATION_ROW)
        for number, here, positions in _by_segment(places):
            stored = self._objects[number].generations(positions)
            part = np.empty(len(here), dtype=GENERATION_ROW)
            part["segment"] = number
            for name in ("key", "sequence", "response_len", "finish"):
                part[name] = stored[name]
            rows[here] = part
        return rows


def _places(number: int, count: int) -> Places:
    return np.uint64(number) << _HALF | np.arange(count, dtype=np.uint64)


def _by_segment(places: Places) -> Iterable[tuple[int, RowNumbers, RowNumbers]]:
    """(segment, where its places stand in `places`, their positions in the key object), each segment once."""
    if not len(places):
        return
    numbers = (places >> _HALF).astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        here = order[start:end]
        yield int(numbers[here[0]]), here, (places[here] & np.uint64(2**32 - 1)).astype(np.int64)
        start = end
