"""Zarr v3 shard objects: written and read chunk by chunk, checked at every step.

Reading through zarr-python costs more than the decompression itself when the unit is a chunk, and it neither bounds
what a chunk expands to nor notices a missing shard; writing through it costs half as much again as compressing. What
is written here is what zarr-python would write, byte for byte. The layout read here is the plain
`sharding_indexed` one: chunks, then an index of little-endian uint64 (offset, length) pairs and its crc32c, at the
end. Every chunk is blosc (whose header tells its size before anything is expanded) followed by a crc32c.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import google_crc32c
import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from cache.disk.manifests import DamagedObject, ObjectInfo
from cache.disk.storage import Objects
from cache.disk.verified import damage_of, read_verified

LARGEST_CHUNK = 2**31 - 1
"""Blosc expands nothing larger; a layout that asks for more is refused before anything is allocated."""

COMPRESSION_LEVEL = 5

_CRC_BYTES = 4
_ENTRY_BYTES = 16
_BLOSC_HEADER = 16

LOADERS = 4
"""Threads that expand chunks, at most one a processor; more would only hold more chunks at once."""

Array = NDArray[np.generic]
Shuffle = Literal["bit", "byte"]


@runtime_checkable
class HeldChunk(Protocol):
    """What a `ChunkCache` holds: anything of a known size that nobody changes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


Chunk = TypeVar("Chunk", bound=HeldChunk)


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """Shape, type and number of the chunks of one array.

    `transposed` chunks are stored column by column. Before they are compressed their bits are shuffled, or their bytes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: int
    transposed: bool = False
    shuffle: Shuffle = "bit"

    @property
    def nbytes(self) -> int:
        """Bytes of one chunk when expanded."""
        return prod(self.shape) * self.dtype.itemsize


def encode_chunk(values: NDArray[Any], layout: ChunkLayout, *, fill: float | int) -> bytes:
    """A chunk as it stands in its shard; `values` that end early are filled up."""
    if len(values) < layout.shape[0]:
        whole = np.full(layout.shape, fill, dtype=layout.dtype)
        whole[: len(values)] = values
        values = whole
    stored = np.ascontiguousarray(values.T if layout.transposed else values, dtype=layout.dtype)
    source, itemsize = stored.view(np.uint8), layout.dtype.itemsize
    shuffle = blosc.BITSHUFFLE if layout.shuffle == "bit" else blosc.SHUFFLE
    return _with_crc(blosc.compress(source, b"zstd", COMPRESSION_LEVEL, shuffle, blosc.AUTOBLOCKS, itemsize))


def join_shard(chunks: Sequence[bytes]) -> bytes:
    """The shard object of these chunks: one after the other, then their index."""
    ends = np.cumsum([len(chunk) for chunk in chunks])
    index = np.array([[end - len(chunk), len(chunk)] for chunk, end in zip(chunks, ends, strict=True)], dtype="<u8")
    return b"".join([*chunks, _with_crc(index.tobytes())])


class ShardFile:
    """A shard object of a segment. The first read verifies all of it, later ones read a chunk and check its crc32c."""

    __slots__ = ("_index", "_info", "_layout", "_lock", "_name", "_segment", "_storage")

    def __init__(self, storage: Objects, info: ObjectInfo, layout: ChunkLayout, *, segment: str, name: str) -> None:
        self._storage, self._info, self._layout = storage, info, layout
        self._segment, self._name = segment, name
        self._index: NDArray[np.uint64] | None = None
        # Two threads that want two chunks of a new object verify it once.
        self._lock = Lock()

    def chunk(self, number: int) -> Array:
        """Chunk `number`, expanded, in its logical shape; read-only. Safe to call from several threads.

        Raises:
            DamagedObject: the object differs from what was written.
            OSError: it cannot be read.
        """
        if self._layout.nbytes > LARGEST_CHUNK:
            raise self._damaged(f"chunks of {self._layout.nbytes} bytes do not exist")
        payload = self._payload(number)
        expanded = np.empty(self._layout.nbytes, dtype=np.uint8)
        if len(payload) < _BLOSC_HEADER or int.from_bytes(payload[4:8], "little") != len(expanded):
            raise self._damaged(f"chunk {number} does not expand to {len(expanded)} bytes")
        try:
            blosc.decompress(payload, expanded)
        except RuntimeError as error:
            raise self._damaged(f"chunk {number} cannot be expanded") from error
        expanded.flags.writeable = False
        array = expanded.view(self._layout.dtype)
        if self._layout.transposed:
            # A view: whoever decodes it works through it in the order in which it is stored.
            return array.reshape(self._layout.shape[::-1]).T
        return array.reshape(self._layout.shape)

    def _payload(self, number: int) -> bytes:
        """The compressed chunk, checked."""
        payload = self._checked_read(number)
        if payload is None:
            with self._lock:
                payload = self._checked_read(number)
                if payload is None:
                    payload = self._verify(number)
        return payload

    def _checked_read(self, number: int) -> bytes | None:
        """The chunk alone, or `None` when the whole object must be looked at."""
        if self._index is None:
            return None
        offset, length = (int(part) for part in self._index[number])
        with damage_of(self._segment, self._name):
            (data,) = self._storage.fetch_spans(self._object, [(offset, length)])
        return _without_crc(data, length=length)

    def _verify(self, number: int) -> bytes:
        data = read_verified(self._storage, self._object, self._info, segment=self._segment)
        index_bytes = self._layout.chunks * _ENTRY_BYTES
        index = _without_crc(data[-(index_bytes + _CRC_BYTES) :], length=index_bytes + _CRC_BYTES)
        if index is None:
            raise self._damaged("its index is not one")
        entries = np.frombuffer(index, dtype="<u8").reshape(self._layout.chunks, 2)
        if (entries > len(data)).any() or (entries.sum(axis=1) > len(data)).any():
            raise self._damaged("its index points outside it")
        self._index = entries
        offset, length = (int(part) for part in entries[number])
        payload = _without_crc(data[offset : offset + length], length=length)
        if payload is None:
            raise self._damaged(f"chunk {number} fails its crc32c")
        return payload

    @property
    def _object(self) -> str:
        return f"segments/{self._segment}/{self._name}"

    def _damaged(self, reason: str) -> DamagedObject:
        return DamagedObject(self._segment, self._name, reason)


class ChunkCache:
    """The chunks used last, at most `max_bytes` of them (but always the newest one). Safe to use from several threads.

    A chunk that several threads want at once is loaded by one of them. Nothing is locked while a chunk is loaded.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._chunks: OrderedDict[Hashable, Any] = OrderedDict()
        self._loading: dict[Hashable, Future[Any]] = {}
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(LOADERS, os.cpu_count() or 1)

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, key: Hashable, load: Callable[[], Chunk]) -> Chunk:
        """The chunk of this name, loaded when it is not held; raises what `load` raises."""
        with self._lock:
            found: Chunk | None = self._chunks.get(key)
            if found is not None:
                self._chunks.move_to_end(key)
                return found
            under_way = self._loading.get(key)
            if under_way is None:
                mine: Future[Chunk] = Future()
                self._loading[key] = mine
        if under_way is not None:
            return under_way.result()  # type: ignore[no-any-return]  # the chunk of this name
        try:
            chunk = load()
        except BaseException as error:  # whoever waits for this load must hear of it, whatever stopped it
            self._finish(key)
            mine.set_exception(error)
            raise
        self._finish(key, chunk)
        mine.set_result(chunk)
        return chunk

    def stream(self, wanted: Sequence[tuple[Hashable, Callable[[], Chunk]]]) -> Iterator[Chunk]:
        """`get` for each (name, loader) in turn, with a few of those to come being loaded by threads meanwhile."""
        with self._lock:
            absent = sum(key not in self._chunks for key, _ in wanted)
        if absent < 2 or self._threads < 2:
            yield from (self.get(key, load) for key, load in wanted)
            return
        pool = self._workers()
        ahead: deque[Future[Chunk]] = deque()
        try:
            for at, (key, load) in enumerate(wanted):
                ahead.append(pool.submit(self.get, key, load))
                if at >= self._threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="chunks")
            return self._pool

    def _finish(self, key: Hashable, chunk: HeldChunk | None = None) -> None:
        """Let go of a load, and hold what came of it."""
        with self._lock:
            del self._loading[key]
            if chunk is None:
                return
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self._max_bytes and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes


def _with_crc(payload: bytes) -> bytes:
    return payload + int(google_crc32c.value(payload)).to_bytes(_CRC_BYTES, "little")


def _without_crc(data: bytes, *, length: int) -> bytes | None:
    if len(data) != length or length < _CRC_BYTES:
        return None
    payload, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    return payload if google_crc32c.value(payload) == int.from_bytes(crc, "little") else None
