"""The key object of a segment: which sequences and generations it holds, in a few bytes each.

`manifests/<uuid>.keys` is three tables without a header: sequence keys in order, what is known of each sequence, and
the generations in the order of their keys (docs/cache-format.md). It is small beside the segment and large beside
memory when there are millions of records, so only the first eight bytes of every key are held (`cache.index`) and the
rest is read where it lies. A block is checked against its crc32c each time it is read: what a key object says leads to
rows, so a bit that flips after the cache was opened must not lead to wrong ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.storage import Storage
from cache.disk.verified import ABSENT, read_verified
from cache.keys import KEY_BYTES
from cache.records import Finish

FINISHES: tuple[Finish, ...] = ("stop", "length", "given")
"""Stored as their position. When rows of one sequence disagree the smallest is kept: a score knows no better."""

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

BLOCK_BYTES = 2**16
PREFIX = np.dtype(">u8")
PREFIX_BYTES = PREFIX.itemsize

Table = NDArray[Any]
"""Structured rows. (The checkers compare an exact dtype, which has no static name here.)"""

Keys = NDArray[Any]
"""Fixed-length byte strings."""

Positions = NDArray[np.int64]
Prefixes = NDArray[np.uint64]


def key_array(keys: Sequence[bytes]) -> Keys:
    """Keys as an array that sorts and compares like the bytes themselves (all have the same length)."""
    return np.frombuffer(b"".join(keys), dtype=KEY)


def key_bytes(keys: Keys) -> list[bytes]:
    """The way back; `tolist` alone would drop trailing zero bytes."""
    return [key.ljust(KEY_BYTES, b"\0") for key in keys.tolist()]


def key_prefixes(keys: Keys) -> Prefixes:
    """The first eight bytes of each key, as numbers in the order of the keys."""
    heads = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)[:, :PREFIX_BYTES]
    return np.ascontiguousarray(heads).view(PREFIX).reshape(-1).astype(np.uint64)


def pack_keys(keys: Keys, entries: Table, generations: Table) -> bytes:
    """The key object: R sorted keys, their R entries in the same order, G generations sorted by key."""
    order = np.argsort(keys, kind="stable")
    ordered = generations[np.argsort(generations["key"], kind="stable")]
    return keys[order].tobytes() + entries[order].tobytes() + ordered.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class KeyPrefixes:
    """The first eight bytes of the keys of a segment, sorted, as numbers: R sequences and G generations."""

    sequences: Prefixes
    generations: Prefixes


class KeyTables:
    """A key object that is wholly in memory: `keys` [R], `entries` [R], `generations` [G]."""

    def __init__(self, data: bytes, manifest: Manifest) -> None:
        first = manifest.rows * KEY_BYTES
        second = first + manifest.rows * ENTRY.itemsize
        if len(data) != second + manifest.generations * GENERATION.itemsize:
            raise DamagedObject(
                manifest.uuid,
                "keys",
                f"{len(data)} bytes do not hold {manifest.rows} + {manifest.generations} entries",
            )
        self.keys: Keys = np.frombuffer(data[:first], dtype=KEY)
        self.entries: Table = np.frombuffer(data[first:second], dtype=ENTRY)
        self.generations: Table = np.frombuffer(data[second:], dtype=GENERATION)

    def prefixes(self) -> KeyPrefixes:
        """What the index holds of the object; shares no memory with it."""
        return KeyPrefixes(key_prefixes(self.keys), key_prefixes(self.generations["key"]))


class KeyObject:
    """A key object on disk, read at single places."""

    __slots__ = ("_crcs", "_manifest", "_name", "_storage")

    def __init__(self, storage: Storage, manifest: Manifest, data: bytes) -> None:
        """`data` is the whole object, known to be what the manifest says; it is not kept."""
        self._storage, self._manifest = storage, manifest
        self._name = f"manifests/{manifest.uuid}.keys"
        view = memoryview(data)
        self._crcs = [
            google_crc32c.value(bytes(view[at : at + BLOCK_BYTES])) for at in range(0, len(data), BLOCK_BYTES)
        ]

    def sequences(self, positions: Positions) -> tuple[Keys, Table]:
        """Keys and entries of the sequences at these positions.

        Raises:
            DamagedObject: the object is no longer what its manifest says.
            OSError: it cannot be read.
        """
        after_keys = self._manifest.rows * KEY_BYTES
        keys = self._items(KEY, positions, offset=0)
        return keys, self._items(ENTRY, positions, offset=after_keys)

    def generations(self, positions: Positions) -> Table:
        """The generations at these positions; raises like `sequences`."""
        offset = self._manifest.rows * (KEY_BYTES + ENTRY.itemsize)
        return self._items(GENERATION, positions, offset=offset)

    def _items(self, kind: np.dtype[Any], positions: Positions, *, offset: int) -> Table:
        starts = offset + positions * kind.itemsize
        first = starts // BLOCK_BYTES
        # An item may reach into the next block, which then follows in `blocks` as well.
        blocks = np.unique(np.concatenate([first, (starts + kind.itemsize - 1) // BLOCK_BYTES]))
        data = self._blocks(blocks.tolist())
        at = np.searchsorted(blocks, first) * BLOCK_BYTES + starts % BLOCK_BYTES
        # One overlapping item for every byte, of which those that begin at a start are taken.
        windows: Table = np.ndarray((len(data) - kind.itemsize + 1,), dtype=kind, buffer=data, strides=(1,))
        items: Table = windows[at]
        return items

    def _blocks(self, numbers: list[int]) -> bytearray:
        """These blocks, one after the other, each as long as a whole one."""
        data = bytearray(len(numbers) * BLOCK_BYTES)
        try:
            descriptor = os.open(self._storage.local(self._name), os.O_RDONLY)
        except FileNotFoundError as error:
            raise DamagedObject(self._manifest.uuid, self._name, ABSENT) from error
        try:
            for slot, number in enumerate(numbers):
                block = os.pread(descriptor, BLOCK_BYTES, number * BLOCK_BYTES)
                if google_crc32c.value(block) != self._crcs[number]:
                    block = self._again(number)
                data[slot * BLOCK_BYTES : slot * BLOCK_BYTES + len(block)] = block
        finally:
            os.close(descriptor)
        return data

    def _again(self, number: int) -> bytes:
        """A block from the whole object, read anew and compared with the manifest."""
        whole = read_verified(self._storage, self._name, self._manifest.keys, segment=self._manifest.uuid)
        return whole[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
