"""Which row answers which key: an in-memory index over the key objects of all segments.

The tables are sorted numpy arrays, searched by bisection; loading a million keys takes about a second. The index is
derived from the manifests and never authoritative: whoever reads a row checks it against its manifest.

Among rows of one sequence the fullest wins: the largest k (0 for text alone), then the oldest segment. Among rows of
one generation each request gets the oldest that reaches far enough (see `reach`), so that an answer, once given,
does not change because a longer one was bought later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.keys import KEY_BYTES
from cache.manifests import DamagedObject, Manifest
from cache.records import Finish

FINISHES: tuple[Finish, ...] = ("stop", "length", "given")
"""Stored as their position. When rows of one sequence disagree the smallest is kept: a score knows no better."""

ENDLESS = 2**32 - 1
"""The reach of an answer that stopped by itself: it serves every limit."""

KEY = np.dtype(f"S{KEY_BYTES}")
ENTRY = np.dtype(
    [("row", "<u4"), ("k", "<u4"), ("length", "<u4"), ("prompt_len", "<u4"), ("finish", "u1"), ("padding", "V3")]
)
GENERATION = np.dtype(
    [
        ("key", KEY),
        ("sequence", KEY),
        ("response_len", "<u4"),
        ("max_new_tokens", "<u4"),
        ("finish", "u1"),
        ("padding", "V3"),
    ]
)
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
GENERATION_ROW = np.dtype(
    [("key", KEY), ("sequence", KEY), ("reach", "<u4"), ("response_len", "<i8"), ("finish", "u1"), ("segment", "<i4")]
)

Table = NDArray[Any]
"""Structured rows. (The checkers compare an exact dtype, which has no static name here.)"""

Keys = NDArray[Any]
"""Fixed-length byte strings."""

Found = NDArray[np.int64]


def key_array(keys: Sequence[bytes]) -> Keys:
    """Keys as an array that sorts and compares like the bytes themselves (all have the same length)."""
    return np.frombuffer(b"".join(keys), dtype=KEY)


def key_bytes(keys: Keys) -> list[bytes]:
    """The way back; `tolist` alone would drop trailing zero bytes."""
    return [key.ljust(KEY_BYTES, b"\0") for key in keys.tolist()]


def reach(finish: NDArray[Any], response_len: NDArray[Any]) -> NDArray[np.uint32]:
    """The largest limit on new tokens that a stored generation serves."""
    return np.where(finish == FINISHES.index("stop"), ENDLESS, response_len).astype(np.uint32)


def pack_keys(keys: Keys, entries: Table, generations: Table) -> bytes:
    """The key object: R sorted keys, their R entries in the same order, G generations sorted by key."""
    order = np.argsort(keys, kind="stable")
    ordered = generations[np.argsort(generations["key"], kind="stable")]
    return keys[order].tobytes() + entries[order].tobytes() + ordered.tobytes()


def unpack_keys(data: bytes, manifest: Manifest, *, segment: int) -> tuple[Table, Table]:
    """Rows for `KeyIndex.extend` from a key object; `segment` is the number that the store gave the segment.

    Raises:
        DamagedObject: the object's length does not fit the manifest.
    """
    rows, generations = manifest.rows, manifest.generations
    first, second = rows * KEY_BYTES, rows * (KEY_BYTES + ENTRY.itemsize)
    if len(data) != second + generations * GENERATION.itemsize:
        raise DamagedObject(manifest.uuid, "keys", f"{len(data)} bytes do not hold {rows} + {generations} entries")
    stored = np.frombuffer(data[first:second], dtype=ENTRY)
    sequences = np.empty(rows, dtype=SEQUENCE_ROW)
    sequences["key"] = np.frombuffer(data[:first], dtype=KEY)
    sequences["segment"] = segment
    for name in ("row", "k", "length", "prompt_len", "finish"):
        sequences[name] = stored[name]
    found = np.frombuffer(data[second:], dtype=GENERATION)
    table = np.empty(generations, dtype=GENERATION_ROW)
    for name in ("key", "sequence", "response_len", "finish"):
        table[name] = found[name]
    table["segment"] = segment
    table["reach"] = reach(found["finish"], found["response_len"])
    return sequences, table


@dataclass(slots=True)
class KeyIndex:
    """The winners of all segments loaded so far."""

    sequences: Table = field(default_factory=lambda: np.empty(0, dtype=SEQUENCE_ROW))
    generations: Table = field(default_factory=lambda: np.empty(0, dtype=GENERATION_ROW))
    _sequence_keys: Keys = field(default_factory=lambda: np.empty(0, dtype=KEY))
    _reach_keys: Keys = field(default_factory=lambda: np.empty(0, dtype=f"S{KEY_BYTES + 4}"))

    def extend(self, tables: Sequence[tuple[Table, Table]], *, age: NDArray[np.int64]) -> None:
        """Take in the tables of further segments; `age[segment]` ranks all segments, the oldest 0."""
        self.sequences = _fullest(np.concatenate([self.sequences, *(table for table, _ in tables)]), age=age)
        self.generations = _staircase(np.concatenate([self.generations, *(table for _, table in tables)]), age=age)
        self._sequence_keys = np.ascontiguousarray(self.sequences["key"])
        self._reach_keys = _with_limit(self.generations["key"], self.generations["reach"])

    def find_sequences(self, keys: Keys) -> Found:
        """Position in `sequences` of each key, -1 where there is none."""
        return _exact(self._sequence_keys, keys, at=np.searchsorted(self._sequence_keys, keys))

    def find_generations(self, keys: Keys, *, limits: NDArray[np.int64]) -> Found:
        """Position in `generations` of the oldest row that serves each limit on new tokens, -1 where none does."""
        at = np.searchsorted(self._reach_keys, _with_limit(keys, limits))
        return _exact(self.generations["key"], keys, at=at)


def _exact(table: NDArray[Any], keys: NDArray[Any], *, at: NDArray[np.int64]) -> Found:
    if not len(table) or not len(keys):
        return np.full(len(keys), -1, dtype=np.int64)
    inside = np.minimum(at, len(table) - 1)
    return np.where((at < len(table)) & (table[inside] == keys), at, -1).astype(np.int64)


def _with_limit(keys: NDArray[Any], limits: NDArray[Any]) -> Keys:
    """Key and big-endian limit in one string, so that one bisection finds the first far enough row of a key."""
    joined = np.empty((len(keys), KEY_BYTES + 4), dtype=np.uint8)
    joined[:, :KEY_BYTES] = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)
    joined[:, KEY_BYTES:] = limits.astype(">u4").view(np.uint8).reshape(-1, 4)
    return joined.view(f"S{KEY_BYTES + 4}").reshape(-1)


def _grouped(table: Table) -> tuple[Table, NDArray[np.int64]]:
    """The table sorted by key, and the number of the key's group for each row."""
    # Mostly sorted runs, on which the stable sort is nearly linear.
    ordered = table[np.argsort(table["key"], kind="stable")]
    new = np.empty(len(ordered), dtype=bool)
    new[:1] = True
    new[1:] = ordered["key"][1:] != ordered["key"][:-1]
    return ordered, np.cumsum(new) - 1


def _fullest(table: Table, *, age: NDArray[np.int64]) -> Table:
    ordered, group = _grouped(table)
    sizes = np.bincount(group) if len(group) else np.empty(0, dtype=np.int64)
    if len(sizes) == len(ordered):
        return ordered
    shared = np.flatnonzero(sizes[group] > 1)
    ranking = np.lexsort((age[ordered["segment"][shared]], -ordered["k"][shared], group[shared]))
    shared = shared[ranking]
    first = np.flatnonzero(np.diff(group[shared], prepend=-1))
    winners = shared[first]
    finish = np.minimum.reduceat(ordered["finish"][shared], first)
    keep = sizes[group] == 1
    keep[winners] = True
    ordered["finish"][winners] = finish
    kept: Table = ordered[keep]
    return kept


def _staircase(table: Table, *, age: NDArray[np.int64]) -> Table:
    """Per key, oldest first, only the rows that reach further than every older one."""
    ordered, group = _grouped(table)
    if len(ordered) < 2 or group[-1] == len(ordered) - 1:
        return ordered
    ranking = np.lexsort((age[ordered["segment"]], group))
    ordered, group = ordered[ranking], group[ranking]
    height = group.astype(np.uint64) << np.uint64(32) | ordered["reach"].astype(np.uint64)
    highest = np.maximum.accumulate(height)
    keep = np.empty(len(ordered), dtype=bool)
    keep[0] = True
    # Group 0 of reach r and group 1 of reach r differ in the upper half, so a new group always stands higher.
    keep[1:] = height[1:] > highest[:-1]
    kept: Table = ordered[keep]
    return kept
