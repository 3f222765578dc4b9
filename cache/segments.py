"""Reading one sealed segment: from index entries to records, whole chunks at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from cache.columns import NO_VERSION, ORIGINS, SegmentSize, layouts
from cache.encoding import cut_rows, decode_rows, row_columns
from cache.key_objects import FINISHES, Table, key_bytes
from cache.manifests import DamagedObject, Manifest
from cache.records import TeacherRecord
from cache.shards import ChunkCache, ShardFile
from cache.storage import Storage


@dataclass(frozen=True, slots=True)
class _Rows:
    """The per-response arrays of several sequences, one after the other."""

    topk_ids: Int32[np.ndarray, "N K"]
    topk_logprobs: Float32[np.ndarray, "N K"]
    target_logprobs: Float32[np.ndarray, " N"]
    target_ranks: Int32[np.ndarray, " N"]
    tail_logmass: Float32[np.ndarray, " N"]


class Segment:
    """A sealed segment that answers with records. Nothing of it reaches a caller unverified."""

    def __init__(self, storage: Storage, manifest: Manifest, *, chunks: ChunkCache) -> None:
        self.manifest = manifest
        self._size = SegmentSize.of(manifest)
        self._chunks = chunks
        self._layouts = layouts(self._size)
        self._storage = storage
        self._shards: dict[str, ShardFile] = {}

    def missing_object(self) -> str | None:
        """The first object that is gone or has another size, found without reading any."""
        sizes = self._storage.sizes(f"segments/{self.manifest.uuid}")
        for name, info in self.manifest.objects.items():
            if sizes.get(name) != info.size:
                return name
        return None

    def prefix(self, row: int, *, length: int) -> NDArray[np.int32]:
        """The first `length` tokens of a sequence.

        Raises:
            DamagedObject: an object differs from the manifest.
            OSError: an object cannot be read.
        """
        start = int(self._whole("token_offsets")[row])
        return self._whole("token_ids")[start : start + length]

    def read(self, entries: Table, *, k: int | None) -> list[TeacherRecord]:
        """The records of these index entries, cut to their `length` and to the best `k` entries (`None`: all).

        Arrays of one call may share memory with each other, never with the cache.

        Raises:
            DamagedObject: an object differs from the manifest.
            OSError: an object cannot be read.
        """
        rows, lengths, prompts = entries["row"], entries["length"], entries["prompt_len"]
        tokens = self._whole("token_ids")[_ranges(self._whole("token_offsets")[rows], lengths)]
        scored = self._whole("k")[rows] > 0 if k != 0 else np.zeros(len(rows), dtype=bool)
        counts = np.where(scored, lengths - prompts, 0)
        values = self._rows(_ranges(self._whole("row_offsets")[rows], counts), k=k or self._size.k)
        origins, versions = self._whole("origin")[rows].tolist(), self._whole("policy_version")[rows].tolist()
        token_ends, row_ends = np.cumsum(lengths).tolist(), np.cumsum(counts).tolist()
        records = []
        for at, key in enumerate(key_bytes(entries["key"])):
            span = slice(row_ends[at] - int(counts[at]), row_ends[at])
            here = bool(scored[at])
            records.append(
                TeacherRecord(
                    key=key,
                    token_ids=tokens[token_ends[at] - int(lengths[at]) : token_ends[at]],
                    prompt_len=int(prompts[at]),
                    finish=FINISHES[entries["finish"][at]],
                    origin=ORIGINS[origins[at]],
                    policy_version=None if versions[at] == NO_VERSION else versions[at],
                    topk_ids=values.topk_ids[span] if here else None,
                    topk_logprobs=values.topk_logprobs[span] if here else None,
                    target_logprobs=values.target_logprobs[span] if here else None,
                    target_ranks=values.target_ranks[span] if here else None,
                    tail_logmass=values.tail_logmass[span] if here else None,
                )
            )
        return records

    def _rows(self, flat: NDArray[np.int64], *, k: int) -> _Rows:
        """The scored rows `flat`, decoded and cut to the best k entries."""
        encoding = self._size.encoding
        if encoding is None or not len(flat):
            ids, per_row = np.empty((0, k), dtype=np.int32), np.empty(0, dtype=np.float32)
            return _Rows(ids, ids.astype(np.float32), per_row, per_row.astype(np.int32), per_row)
        columns = {name: self._gather(name, flat) for name in row_columns(encoding)}
        tail = self._gather("tail_logmass", flat)
        logprobs = decode_rows(columns, tail_logmass=tail, encoding=encoding)
        ids, logprobs, tail = cut_rows(self._gather("topk_ids", flat), logprobs, tail, k=k)
        return _Rows(ids, logprobs, self._gather("target_logprob", flat), self._gather("target_rank", flat), tail)

    def _gather(self, name: str, flat: NDArray[np.int64]) -> NDArray[Any]:
        """Rows `flat` of a column, whole chunks at a time."""
        layout = self._layouts[name]
        if layout.chunks == 1:
            return self._whole(name)[flat]
        numbers, inside = np.divmod(flat, layout.shape[0])
        gathered = np.empty((len(flat), *layout.shape[1:]), dtype=layout.dtype)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            gathered[here] = self._chunk(name, number)[inside[here]]
        return gathered

    def _whole(self, name: str) -> NDArray[Any]:
        return self._chunk(name, 0)

    def _chunk(self, name: str, number: int) -> NDArray[Any]:
        return self._chunks.get((self.manifest.uuid, name, number), lambda: self._shard(name).chunk(number))

    def _shard(self, name: str) -> ShardFile:
        if name not in self._shards:
            layout = self._layouts[name]
            path = f"{name}/c" + "/0" * len(layout.shape)
            info = self.manifest.objects.get(path)
            if info is None:
                raise DamagedObject(self.manifest.uuid, path, "not named by the manifest")
            self._shards[name] = ShardFile(self._storage, info, layout, segment=self.manifest.uuid, name=path)
        return self._shards[name]


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`starts[i], starts[i] + 1, ...`, `counts[i]` of them, for every i in turn."""
    before = np.cumsum(counts) - counts
    ranges: NDArray[np.int64] = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
    return ranges
