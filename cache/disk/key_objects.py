"""The key object of a segment: which sequences and generations it holds, in a few bytes each.

`manifests/<uuid>.keys` is three tables without a header: sequence keys in order, what is known of each sequence, and
the generations in the order of their keys (docs/cache-format.md). It is small beside the segment and large beside
memory when there are millions of records, so only the first eight bytes of every key are held (`cache.index`) and the
rest is read where it lies. A block is checked against its crc32c each time it is read: what a key object says leads to
rows, so a bit that flips after the cache was opened must not lead to wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.storage import Objects
from cache.disk.verified import damage_of, read_verified
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

_GIVEN = FINISHES.index("given")

BLOCK_BYTES = 2**16
KEY_PREFIX = np.dtype(">u8")
PREFIX_BYTES = KEY_PREFIX.itemsize

Table = NDArray[Any]
"""Structured rows. (The checkers compare an exact dtype, which has no static name here.)"""

Keys = NDArray[Any]
"""Fixed-length byte strings."""

RowNumbers = NDArray[np.int64]
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
    return np.ascontiguousarray(heads).view(KEY_PREFIX).reshape(-1).astype(np.uint64)


def one_of_each(keys: Keys, *, limits: NDArray[np.int64]) -> RowNumbers:
    """Where the one with the highest limit stands of all with the same key, the first among equals; in order."""
    prefixes = key_prefixes(keys)
    order = np.argsort(prefixes, kind="stable")
    alike = np.flatnonzero(prefixes[order[1:]] == prefixes[order[:-1]])
    several = np.zeros(len(keys), dtype=bool)
    several[order[alike]] = several[order[alike + 1]] = True
    # Few begin alike, so few are compared whole.
    ranked = np.flatnonzero(several)
    ranked = ranked[np.lexsort((ranked, -limits[ranked], keys[ranked]))]
    kept = ~several
    kept[ranked[:1]] = True
    kept[ranked[1:][keys[ranked[1:]] != keys[ranked[:-1]]]] = True
    return np.flatnonzero(kept)


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
        self._prefixes = KeyPrefixes(key_prefixes(self.keys), key_prefixes(self.generations["key"]))
        broken = self._broken(manifest)
        if broken is not None:
            raise DamagedObject(manifest.uuid, "keys", broken)

    def prefixes(self) -> KeyPrefixes:
        """What the index holds of the object; shares no memory with it."""
        return self._prefixes

    def _broken(self, manifest: Manifest) -> str | None:
        """What no writer writes, `None` when there is nothing: what is said here leads to rows."""
        entries, generations = self.entries, self.generations
        responses = entries["length"].astype(np.int64) - entries["prompt_len"]
        scored = entries["k"] > 0
        ks = entries["k"][scored]
        one_k = ks <= manifest.k if manifest.encoding == "sampled" else ks == manifest.k
        rules: dict[str, Any] = {
            "its keys are not in order": _ascending(self._prefixes.sequences),
            "its generations are not in order": _ascending(self._prefixes.generations),
            f"row numbers outside 0..{manifest.rows - 1}": entries["row"] < manifest.rows,
            "prompts longer than their sequences, or empty": (entries["prompt_len"] > 0) & (responses >= 0),
            f"finish is not 0..{len(FINISHES) - 1}": entries["finish"] < len(FINISHES),
            "a generation's finish is neither 0 nor 1": generations["finish"] < _GIVEN,
            "a generation is longer than its limit": generations["response_len"] <= generations["max_new_tokens"],
            "its k is not that of the manifest": one_k,
            "its tokens are not those of the manifest": entries["length"].sum(dtype=np.int64) == manifest.tokens,
            "its responses are not those of the manifest": responses.sum() == manifest.response_tokens,
        }
        if manifest.signals:
            rules["a signal has no values"] = scored
            rules["a signal has an end of its own"] = entries["finish"] == _GIVEN
        else:
            rules["its scored rows are not those of the manifest"] = responses[scored].sum() == manifest.scored_rows
        return next((rule for rule, holds in rules.items() if not np.all(holds)), None)


def _ascending(prefixes: Prefixes) -> bool:
    return bool((prefixes[1:] >= prefixes[:-1]).all())


class KeyObject:
    """A key object on disk, read at single places."""

    __slots__ = ("_crcs", "_manifest", "_name", "_storage")

    def __init__(self, storage: Objects, manifest: Manifest, data: bytes) -> None:
        """`data` is the whole object, known to be what the manifest says; it is not kept."""
        self._storage, self._manifest = storage, manifest
        self._name = f"manifests/{manifest.uuid}.keys"
        view = memoryview(data)
        self._crcs = [
            google_crc32c.value(bytes(view[at : at + BLOCK_BYTES])) for at in range(0, len(data), BLOCK_BYTES)
        ]

    def sequences(self, positions: RowNumbers) -> tuple[Keys, Table]:
        """Keys and entries of the sequences at these positions.

        Raises:
            DamagedObject: the object is no longer what its manifest says.
            OSError: it cannot be read.
        """
        after_keys = self._manifest.rows * KEY_BYTES
        keys = self._items(KEY, positions, offset=0)
        return keys, self._items(ENTRY, positions, offset=after_keys)

    def generations(self, positions: RowNumbers) -> Table:
        """The generations at these positions; raises like `sequences`."""
        offset = self._manifest.rows * (KEY_BYTES + ENTRY.itemsize)
        return self._items(GENERATION, positions, offset=offset)

    def _items(self, kind: np.dtype[Any], positions: RowNumbers, *, offset: int) -> Table:
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
        with damage_of(self._manifest.uuid, self._name):
            blocks = self._storage.fetch_spans(self._name, [(number * BLOCK_BYTES, BLOCK_BYTES) for number in numbers])
        for slot, (number, block) in enumerate(zip(numbers, blocks, strict=True)):
            sound = block if google_crc32c.value(block) == self._crcs[number] else self._again(number)
            data[slot * BLOCK_BYTES : slot * BLOCK_BYTES + len(sound)] = sound
        return data

    def _again(self, number: int) -> bytes:
        """A block from the whole object, read anew and compared with the manifest."""
        whole = read_verified(self._storage, self._name, self._manifest.keys, segment=self._manifest.uuid)
        return whole[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
