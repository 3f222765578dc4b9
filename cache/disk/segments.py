"""One sealed segment: its columns as arrays, whole chunks at a time, decoded once when they are loaded.

Nothing here works on single sequences; `cache.blocks` puts those together from what it finds here, and
`cache.signal_blocks` signals, whose own columns `cache.disk.signal_rows` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from jaxtyping import Int32
from numpy.typing import NDArray

from cache.disk.columns import (
    IDS_BY_RANK,
    NO_VERSION,
    ORIGINS,
    RANKS,
    ROW_ID,
    SegmentSize,
    check_column,
    layouts,
    row_id_base,
)
from cache.disk.encoding import Encoding, Held, grown_tail, held_logprobs, held_rows, row_columns
from cache.disk.key_objects import Table
from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.ranked_ids import ids_of
from cache.disk.shards import ChunkCache, ShardFile
from cache.disk.storage import Objects

SEQUENCE_FACTS = np.dtype(
    [
        ("token_start", "<i8"),
        ("tokens", "<i8"),
        ("row_start", "<i8"),
        ("rows", "<i8"),
        ("policy_version", "<i8"),
        ("k", "<i4"),
        ("origin", "u1"),
    ]
)
"""What is read of a sequence together: its tokens and scored rows (start, count), and what its index entry lacks."""

ROW_FACTS = np.dtype([("scale", "<f4"), ("tail_logmass", "<f4"), ("target_logprob", "<f4"), ("target_rank", "<i4")])
"""What is read of a scored row together; `scale` is the constant of `held_logprobs`."""


@dataclass(frozen=True, slots=True)
class RowChunk:
    """A chunk of n scored rows, ready to be gathered from: `values` as `held_rows` gives them, facts [ROW_FACTS]."""

    ids: Int32[np.ndarray, "n K"]
    values: Held
    facts: Table

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.ids.nbytes + self.values.nbytes + self.facts.nbytes


class Segment:
    """A sealed segment. Nothing of it reaches a caller unverified; several threads may read it.

    What reads arrays raises DamagedObject when an object differs from the manifest and OSError when it cannot be read.
    The arrays are shared and must not be changed.
    """

    def __init__(self, storage: Objects, manifest: Manifest, *, chunks: ChunkCache) -> None:
        self.manifest = manifest
        self.chunks = chunks
        self._size = SegmentSize.of(manifest)
        self._layouts = layouts(self._size)
        self._storage = storage
        self._shards: dict[str, ShardFile] = {}

    @property
    def encoding(self) -> Encoding | None:
        """How the scored rows are kept; `None` when there are none."""
        assert not self.manifest.signals, "signals are read by cache.disk.signal_rows"
        return cast(Encoding | None, self._size.encoding)

    @property
    def kind(self) -> tuple[bool, int]:
        """Whether the scored rows are draws, and their K (0: none). Only log-probabilities can be cut to one K."""
        return self._size.encoding == "sampled", self._size.k

    @property
    def chunk_rows(self) -> int:
        """Scored rows of one `row_chunk`."""
        return max(self._size.chunk_rows, 1)

    def missing_object(self) -> str | None:
        """The first object that is gone or has another size, found without reading any."""
        sizes = self._storage.sizes(f"segments/{self.manifest.uuid}")
        for name, info in self.manifest.objects.items():
            if sizes.get(name) != info.size:
                return name
        return None

    def prefix(self, row: int, *, length: int) -> NDArray[np.int32]:
        """The first `length` tokens of a sequence."""
        start, end = self.column("token_offsets")[row : row + 2].tolist()
        if length > end - start:
            raise self.odd("a row is shorter than its key says")
        return self.token_ids()[start : start + length]

    def row_ids(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The ids of these rows, which they keep when they move to another segment; raises like `prefix`."""
        if self._size.moved:
            return self.column(ROW_ID)[rows]
        return rows.astype(np.uint64) + np.uint64(row_id_base(self.manifest.uuid))

    def token_ids(self) -> NDArray[np.int32]:
        """The tokens of all sequences, one after the other."""
        return self.column("token_ids")

    def sequences(self) -> Table:
        """The facts [SEQUENCE_FACTS] of all sequences."""
        return self.chunks.get((self.manifest.uuid, "sequences"), self._load_sequences)

    def sources(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What these records of draws were drawn from, and the seeds."""
        return self.column("sampled_from")[rows], self.column("sampling_seed")[rows]

    def row_chunk(self, number: int, *, k: int | None) -> tuple[Hashable, Callable[[], RowChunk]]:
        """Name and loader, for `ChunkCache`, of a chunk of scored rows cut to the best k entries (`None`: all)."""
        name = (self.manifest.uuid, "rows", number, self._size.k if k is None else k)
        return name, partial(self._load_rows, number, k=k)

    def _load_sequences(self) -> Table:
        facts = np.empty(self._size.rows, dtype=SEQUENCE_FACTS)
        tokens, rows = self.chunk("token_offsets"), self.chunk("row_offsets")
        facts["token_start"], facts["tokens"] = tokens[:-1], np.diff(tokens)
        facts["row_start"], facts["rows"] = rows[:-1], np.diff(rows)
        for name in ("policy_version", "k", "origin"):
            facts[name] = self.chunk(name)
        k, version = facts["k"], facts["policy_version"]
        if not ((k >= 0) & (k <= self._size.k) & (version >= NO_VERSION) & (facts["origin"] < len(ORIGINS))).all():
            raise self.odd("k, origin or policy_version has a value that does not exist")
        return facts

    def odd(self, reason: str) -> DamagedObject:
        """The error that says what no writer could have written."""
        return DamagedObject(self.manifest.uuid, "columns", reason)

    def _load_rows(self, number: int, *, k: int | None) -> RowChunk:
        # Every second chunk reads its ids last: of two threads that begin with a new segment one verifies the ids,
        # which takes long, and the other finds something else to do.
        if number % 2:
            values, facts = self._load_values(number, k=k)
            return RowChunk(self._load_ids(number, k=k), values, facts)
        ids = self._load_ids(number, k=k)
        return RowChunk(ids, *self._load_values(number, k=k))

    def _load_ids(self, number: int, *, k: int | None) -> NDArray[np.int32]:
        if self._size.ranked:
            ids = ids_of(self.part(RANKS, number), self.column(IDS_BY_RANK))
        else:
            ids = self.part("topk_ids", number)
        # A copy, so that what is cut off is let go.
        return ids if k is None or k == self._size.k else ids[:, :k].copy()

    def _load_values(self, number: int, *, k: int | None) -> tuple[Held, Table]:
        encoding = self.encoding
        assert encoding is not None
        columns = {name: self.part(name, number) for name in row_columns(encoding)}
        rows = self._of_chunk(number)
        facts = np.zeros(rows.stop - rows.start, dtype=ROW_FACTS)
        facts["target_logprob"] = self.part("target_logprob", number)
        facts["target_rank"] = self.part("target_rank", number)
        tail = facts["tail_logmass"] if encoding == "sampled" else self.part("tail_logmass", number)
        values, facts["scale"] = held_rows(columns, tail_logmass=tail, encoding=encoding)
        if k is not None and k < self._size.k:
            tail = grown_tail(tail, held_logprobs(values[:, k:], facts["scale"], encoding=encoding))
            values = values[:, :k].copy()
        facts["tail_logmass"] = tail
        return values, facts

    def part(self, name: str, number: int) -> NDArray[Any]:
        """The part of a column over scored rows that goes with chunk `number` of them."""
        rows = self._of_chunk(number)
        if len(self._layouts[name].shape) > 1:
            # The last chunk is filled up behind its rows.
            return self.chunk(name, number)[: rows.stop - rows.start]
        # A column of one value a row is a single chunk, of which every chunk of rows needs a part.
        whole = self.chunk(name) if self._size.scored_rows <= self._size.chunk_rows else self.column(name)
        return whole[rows]

    def column(self, name: str) -> NDArray[Any]:
        """A column of one chunk, kept for the next time."""
        return self.chunks.get((self.manifest.uuid, name), partial(self.chunk, name))

    def chunk(self, name: str, number: int = 0) -> NDArray[Any]:
        """A chunk of a column, read for this call alone."""
        return check_column(self.manifest, name, self._shard(name).chunk(number))

    def _of_chunk(self, number: int) -> slice:
        start = number * self.chunk_rows
        return slice(start, min(start + self.chunk_rows, self._size.scored_rows))

    def _shard(self, name: str) -> ShardFile:
        found = self._shards.get(name)
        if found is None:
            layout = self._layouts[name]
            path = f"{name}/c" + "/0" * len(layout.shape)
            info = self.manifest.objects.get(path)
            if info is None:
                raise DamagedObject(self.manifest.uuid, path, "not named by the manifest")
            shard = ShardFile(self._storage, info, layout, segment=self.manifest.uuid, name=path)
            # Of two threads that come here at once one wins, so that both share its lock.
            found = self._shards.setdefault(name, shard)
        return found
