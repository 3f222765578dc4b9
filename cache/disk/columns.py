"""The columns of a segment: their shapes, their values, and the Zarr v3 group that holds them.

Shapes: R sequences, N scored rows (positions with log-probabilities), K top-k. Row r of the columns per row belongs to
the sequence i with `row_offsets[i] <= r < row_offsets[i + 1]`; a sequence kept as text alone has `k[i] == 0` and no
rows. In a segment of sampled records `k[i]` is the width of record i, and K the largest of them.

Every array is one shard object. Columns over N x K have chunks of 8,192 rows (fewer when K is large), all others are
one chunk: a reader fetches whole chunks and never a slice per sequence. Chunks are blosc-zstd with bit shuffling, then
crc32c. In a segment of signals K is W, and the columns over its rows are those of `cache.disk.signal_columns`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec
from zarr.storage import MemoryStore

from cache.disk.encoding import Encoding, encode_draws, encode_rows, row_columns
from cache.disk.key_objects import FINISHES
from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.shards import COMPRESSION_LEVEL, ChunkLayout, Shuffle, encode_chunk, join_shard
from cache.disk.signal_columns import FILLS, asked_columns, signal_layouts
from cache.disk.signal_encoding import SIGNAL_ENCODINGS, SignalEncoding
from cache.keys import KEY_BYTES
from cache.records import Origin, TeacherRecord
from cache.signals import SignalRecord

CHUNK_ROWS = 8192
CHUNK_BYTES = 2**25
"""Rows of a large K (whole vocabularies) are chunked by size instead."""

ORIGINS: tuple[Origin, ...] = ("decode", "prefill")
NO_VERSION = -1
WRITERS = 4
"""Threads that compress chunks, at most one a processor."""
ROW_ID = "row_id"

_PER_SEQUENCE = {"prompt_len": "<i4", "finish": "u1", "origin": "u1", "policy_version": "<i8", "k": "<i4"}
_OF_SIGNALS = ("prompt_len", "finish", "k")
"""Those that a segment of signals has too: where the second text of a pair begins, `given`, and W."""

Columns = Mapping[str, NDArray[np.generic]]

_OFFSETS = {"token_offsets": "<i8", "row_offsets": "<i8"}
_PER_ROW = {"top1_logprob": "<f4", "tail_logmass": "<f4", "target_logprob": "<f4", "target_rank": "<i4"}
RANKS, IDS_BY_RANK = "topk_ranks", "ids_by_rank"
TABLE = 2**16
"""Entries of `ids_by_rank`: one for every number that a rank can be."""

_PER_ENTRY = {
    "topk_ids": "<i4",
    RANKS: "<u2",
    "topk_dq": "u1",
    "topk_logprob_f16": "<f2",
    "topk_logprob": "<f4",
    "draw_count": "<u2",
}
_TRANSPOSED = frozenset({"topk_dq"})
_BYTE_SHUFFLED = frozenset({RANKS})
_SHUFFLES: Mapping[str, Literal["bitshuffle", "shuffle"]] = {"bit": "bitshuffle", "byte": "shuffle"}


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """The numbers that fix the shape of every array: R, N, all tokens, K, and rows a chunk.

    `moved` is set when the rows were first written in other segments and keep the ids that they had there. `ranked` is
    set when token ids are kept by their ranks (`cache.disk.ranked_ids`).
    """

    rows: int
    scored_rows: int
    tokens: int
    k: int
    chunk_rows: int
    encoding: Encoding | SignalEncoding | None
    moved: bool = False
    ranked: bool = False

    @classmethod
    def of(cls, manifest: Manifest) -> SegmentSize:
        """As a manifest tells them."""
        return cls(
            rows=manifest.rows,
            scored_rows=manifest.scored_rows,
            tokens=manifest.tokens,
            k=manifest.k,
            chunk_rows=manifest.chunk_rows,
            encoding=cast(Encoding | SignalEncoding | None, manifest.encoding),
            moved=any(path.startswith(f"{ROW_ID}/") for path in manifest.objects),
            ranked=manifest.ranked,
        )


def rows_per_chunk(scored_rows: int, *, k: int) -> int:
    """Rows a chunk of the columns over N x K; 0 when there are no rows."""
    return min(scored_rows, CHUNK_ROWS, max(1, CHUNK_BYTES // (4 * max(k, 1))))


def layouts(size: SegmentSize) -> dict[str, ChunkLayout]:
    """Chunk layout of every array of a segment of this size."""
    signals = size.encoding in SIGNAL_ENCODINGS
    kinds = {name: kind for name, kind in _PER_SEQUENCE.items() if name in _OF_SIGNALS or not signals}
    found = {name: ChunkLayout(np.dtype(kind), (size.rows,), 1) for name, kind in kinds.items()}
    found |= {name: ChunkLayout(np.dtype(kind), (size.rows + 1,), 1) for name, kind in _OFFSETS.items()}
    found["token_ids"] = ChunkLayout(np.dtype("<i4"), (size.tokens,), 1, shuffle="byte" if signals else "bit")
    if size.moved:
        found[ROW_ID] = ChunkLayout(np.dtype("<u8"), (size.rows,), 1)
    if size.encoding is None or size.scored_rows == 0:
        return found
    if signals:
        return found | signal_layouts(
            rows=size.rows,
            scored_rows=size.scored_rows,
            k=size.k,
            chunk_rows=size.chunk_rows,
            encoding=cast(SignalEncoding, size.encoding),
        )
    ids = RANKS if size.ranked else "topk_ids"
    columns = {ids, "target_logprob", "target_rank", *row_columns(cast(Encoding, size.encoding))}
    if size.ranked:
        found[IDS_BY_RANK] = ChunkLayout(np.dtype("<i4"), (TABLE,), 1)
    if size.encoding == "sampled":
        found["sampled_from"] = ChunkLayout(np.dtype("u1"), (size.rows, KEY_BYTES), 1)
        found["sampling_seed"] = ChunkLayout(np.dtype("<i8"), (size.rows,), 1)
    else:
        columns.add("tail_logmass")
    chunks = -(-size.scored_rows // size.chunk_rows)
    for name, kind in _PER_ROW.items():
        if name in columns:
            found[name] = ChunkLayout(np.dtype(kind), (size.scored_rows,), 1)
    for name, kind in _PER_ENTRY.items():
        if name in columns:
            shape = (size.chunk_rows, size.k)
            shuffle: Shuffle = "byte" if name in _BYTE_SHUFFLED else "bit"
            found[name] = ChunkLayout(np.dtype(kind), shape, chunks, name in _TRANSPOSED, shuffle)
    return found


def segment_columns(records: Sequence[TeacherRecord], *, encoding: Encoding | None) -> dict[str, NDArray[np.generic]]:
    """All arrays of a segment of these records, whose scored ones share one k."""
    scored = [record for record in records if record.k]
    versions = [NO_VERSION if record.policy_version is None else record.policy_version for record in records]
    columns: dict[str, NDArray[np.generic]] = {
        "token_ids": np.concatenate([record.token_ids for record in records]).astype("<i4", copy=False),
        "token_offsets": _offsets([len(record.token_ids) for record in records]),
        "row_offsets": _offsets([record.response_len if record.k else 0 for record in records]),
        "prompt_len": np.array([record.prompt_len for record in records], dtype="<i4"),
        "finish": np.array([FINISHES.index(record.finish) for record in records], dtype="u1"),
        "origin": np.array([ORIGINS.index(record.origin) for record in records], dtype="u1"),
        "policy_version": np.array(versions, dtype="<i8"),
        "k": np.array([record.k for record in records], dtype="<i4"),
    }
    if encoding is None or not any(record.response_len for record in scored):
        return columns
    if encoding == "sampled":
        columns |= _draws(records)
    else:
        columns |= encode_rows(_joined(scored, "topk_logprobs", kind="<f4"), encoding=encoding)
        columns["topk_ids"] = _joined(scored, "topk_ids", kind="<i4")
        columns["tail_logmass"] = _joined(scored, "tail_logmass", kind="<f4")
    columns["target_logprob"] = _joined(scored, "target_logprobs", kind="<f4")
    columns["target_rank"] = _joined(scored, "target_ranks", kind="<i4")
    return columns


def shared_columns(records: Sequence[SignalRecord]) -> dict[str, NDArray[np.generic]]:
    """All arrays of a segment of these signals but those of their values."""
    return {
        "token_ids": np.concatenate([record.token_ids for record in records]).astype("<i4", copy=False),
        "token_offsets": _offsets([len(record.token_ids) for record in records]),
        "row_offsets": _offsets([len(record.values) for record in records]),
        "prompt_len": np.array([record.split for record in records], dtype="<i4"),
        "finish": np.full(len(records), FINISHES.index("given"), dtype="u1"),
        "k": np.array([record.width for record in records], dtype="<i4"),
        **asked_columns(records),
    }


def check_column(manifest: Manifest, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The column, if it leads somewhere: offsets from 0 up to all tokens or scored rows and never back, ids from 0 on.

    Raises:
        DamagedObject: naming the array.
    """
    end = {"token_offsets": manifest.tokens, "row_offsets": manifest.scored_rows}.get(name)
    if end is not None and not (values[0] == 0 and values[-1] == end and (values[1:] >= values[:-1]).all()):
        raise DamagedObject(manifest.uuid, name, "its offsets lead outside the segment")
    if name == "token_ids" and values.min(initial=0) < 0:
        raise DamagedObject(manifest.uuid, name, "a token id is negative")
    return values


def row_id_base(uuid: str) -> int:
    """The id of row 0 of a segment whose rows were first written there; row r has this + r, modulo 2^64.

    A row that moves to another segment keeps its id (column `row_id`), so that it can be known again.
    """
    return int.from_bytes(hashlib.sha256(uuid.encode("ascii")).digest()[:8], "little")


def zarr_objects(columns: Columns, *, size: SegmentSize) -> dict[str, bytes]:
    """The objects of the Zarr group, by path, with the very bytes that go to disk."""
    found = layouts(size)
    # Compression lets go of the interpreter lock.
    with ThreadPoolExecutor(min(WRITERS, os.cpu_count() or 1), thread_name_prefix="chunk-writer") as pool:
        pending = {name: _encoded(pool, name, columns[name], layout) for name, layout in found.items()}
        objects = _descriptions(columns, found)
        for name, chunks in pending.items():
            path = f"{name}/c" + "/0" * len(found[name].shape)
            objects[path] = join_shard([chunk.result() for chunk in chunks])
    return dict(sorted(objects.items()))


def _encoded(
    pool: ThreadPoolExecutor, name: str, values: NDArray[np.generic], layout: ChunkLayout
) -> list[Future[bytes]]:
    rows, fill = layout.shape[0], _fill(name, layout)
    parts = [values[at * rows : (at + 1) * rows] for at in range(layout.chunks)]
    return [pool.submit(encode_chunk, part, layout, fill=fill) for part in parts]


def _descriptions(columns: Columns, found: Mapping[str, ChunkLayout]) -> dict[str, bytes]:
    """The zarr.json of the group and of every array, which zarr-python knows best how to write."""
    held: dict[str, Any] = {}
    # Indented they would be a third larger, which shows in small segments.
    with zarr.config.set({"json_indent": None}):
        group = zarr.create_group(MemoryStore(held), zarr_format=3)
        for name, layout in found.items():
            group.create_array(
                name,
                shape=columns[name].shape,
                chunks=layout.shape,
                shards=(layout.shape[0] * layout.chunks, *layout.shape[1:]),
                dtype=layout.dtype,
                filters=[TransposeCodec(order=(1, 0))] if layout.transposed else [],
                compressors=[
                    BloscCodec(cname="zstd", clevel=COMPRESSION_LEVEL, shuffle=_SHUFFLES[layout.shuffle]),
                    Crc32cCodec(),
                ],
                fill_value=_fill(name, layout),
            )
    return {path: buffer.to_bytes() for path, buffer in held.items()}


def _draws(records: Sequence[TeacherRecord]) -> dict[str, NDArray[np.generic]]:
    """The columns that only sampled records have, and their ids: every row filled up to the widest record."""
    rows, width = sum(record.response_len for record in records), max(record.k for record in records)
    ids, counts = np.full((rows, width), -1, dtype="<i4"), np.zeros((rows, width), dtype=np.int32)
    end = 0
    for record in records:
        start, end = end, end + record.response_len
        assert record.topk_ids is not None and record.counts is not None
        ids[start:end, : record.k], counts[start:end, : record.k] = record.topk_ids, record.counts
    sources = b"".join(record.sampled_from or b"" for record in records)
    seeds = [record.sampling_seed for record in records]
    return {
        **encode_draws(counts),
        "topk_ids": ids,
        "sampled_from": np.frombuffer(sources, dtype="u1").reshape(-1, KEY_BYTES),
        "sampling_seed": np.array(seeds, dtype="<i8"),
    }


def _fill(name: str, layout: ChunkLayout) -> float | int:
    """A fill value that cannot be data; in `topk_dq` the first column is always 0, so 255 there is none either."""
    if layout.dtype.kind == "f":
        return float("nan")
    return FILLS.get(name, int(np.iinfo(layout.dtype).max) if layout.dtype.kind == "u" else -2)


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype("<i8")


def _joined(records: Sequence[TeacherRecord], name: str, *, kind: str) -> NDArray[Any]:
    joined: NDArray[Any] = np.concatenate([getattr(record, name) for record in records]).astype(kind, copy=False)
    return joined
