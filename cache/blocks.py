"""Reading many sequences at once: flat arrays over all of them, filled straight from whole chunks.

Shapes: R sequences of a block with T tokens and N scored rows in all, K entries a row. All that is done for each
sequence is a few slice copies, the rest is done once for the block, so that a shuffled epoch costs little more than
copying its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8
from numpy.typing import NDArray

from cache.disk.columns import NO_VERSION, ORIGINS
from cache.disk.gather import Spans, gather_rows, gather_tokens, members, offsets
from cache.disk.key_objects import FINISHES, Table
from cache.disk.manifests import DamagedObject
from cache.disk.segments import SEQUENCE_FACTS, Segment
from cache.keys import KEY_BYTES
from cache.records import TeacherRecord
from configs.errors import RecordError

Segments = Mapping[int, Segment] | Sequence[Segment]
"""Segments by the number that index entries give them."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordBlock:
    """R sequences, laid flat. Nothing in it shares memory with the cache.

    Sequence i has the tokens `token_offsets[i]` to `token_offsets[i + 1]` and the scored rows `row_offsets[i]` to
    `row_offsets[i + 1]`; `k[i]` is 0 for text alone, which has no rows. `finish` and `origin` are positions in
    `cache.disk.key_objects.FINISHES` and `cache.disk.columns.ORIGINS`; a `policy_version` of -1 is none. In a block of
    sampled records `counts` takes the place of `topk_logprobs` and `tail_logmass`, and rows are filled up with id -1
    and count 0 behind the `k[i]` entries that are the record's own.
    """

    keys: UInt8[np.ndarray, "R 32"]
    token_ids: Int32[np.ndarray, " T"]
    token_offsets: Int64[np.ndarray, " R1"]
    prompt_len: Int32[np.ndarray, " R"]
    finish: UInt8[np.ndarray, " R"]
    origin: UInt8[np.ndarray, " R"]
    policy_version: Int64[np.ndarray, " R"]
    k: Int32[np.ndarray, " R"]
    row_offsets: Int64[np.ndarray, " R1"]
    topk_ids: Int32[np.ndarray, "N K"]
    target_logprobs: Float32[np.ndarray, " N"]
    target_ranks: Int32[np.ndarray, " N"]
    topk_logprobs: Float32[np.ndarray, "N K"] | None
    tail_logmass: Float32[np.ndarray, " N"] | None
    counts: Int32[np.ndarray, "N K"] | None = None
    sampled_from: UInt8[np.ndarray, "R 32"] | None = None
    sampling_seed: Int64[np.ndarray, " R"] | None = None

    def __len__(self) -> int:
        return len(self.k)

    def records(self) -> list[TeacherRecord]:
        """The sequences one by one, as slices of this block's arrays."""
        return [self._record(at, *ends) for at, ends in enumerate(self._ends())]

    def _ends(self) -> Iterator[tuple[int, int, int, int]]:
        tokens, rows = self.token_offsets.tolist(), self.row_offsets.tolist()
        return zip(tokens[:-1], tokens[1:], rows[:-1], rows[1:], strict=True)

    def _record(self, at: int, first: int, last: int, start: int, stop: int) -> TeacherRecord:
        version, k = int(self.policy_version[at]), int(self.k[at])
        rows = slice(start, stop)
        scored = k > 0
        sampled = scored and self.counts is not None
        return TeacherRecord(
            key=self.keys[at].tobytes(),
            token_ids=self.token_ids[first:last],
            prompt_len=int(self.prompt_len[at]),
            finish=FINISHES[self.finish[at]],
            origin=ORIGINS[self.origin[at]],
            policy_version=None if version == NO_VERSION else version,
            topk_ids=self.topk_ids[rows, :k] if scored else None,
            topk_logprobs=self.topk_logprobs[rows] if scored and self.topk_logprobs is not None else None,
            target_logprobs=self.target_logprobs[rows] if scored else None,
            target_ranks=self.target_ranks[rows] if scored else None,
            tail_logmass=self.tail_logmass[rows] if scored and self.tail_logmass is not None else None,
            counts=self.counts[rows, :k] if sampled and self.counts is not None else None,
            sampled_from=self.sampled_from[at].tobytes() if sampled and self.sampled_from is not None else None,
            sampling_seed=int(self.sampling_seed[at]) if sampled and self.sampling_seed is not None else None,
        )


def read_records(segments: Segments, entries: Table, *, k: int | None) -> list[TeacherRecord]:
    """The records of index entries in their order, of whatever kinds; `None` reads all entries of every row.

    Raises:
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    numbers = np.unique(entries["segment"]).tolist()
    kinds = {number: segments[number].kind if k != 0 else (False, 0) for number in numbers}
    if k is not None:
        kinds = {number: (sampled, 0) for number, (sampled, _) in kinds.items()}
    if len(set(kinds.values())) < 2:
        return read_block(segments, entries, k=k).records()
    records: dict[int, TeacherRecord] = {}
    for kind in sorted(set(kinds.values())):
        same = [number for number in numbers if kinds[number] == kind]
        here = np.flatnonzero(np.isin(entries["segment"], same))
        records |= zip(here.tolist(), read_block(segments, entries[here], k=k).records(), strict=True)
    return [records[at] for at in range(len(entries))]


def read_block(segments: Segments, entries: Table, *, k: int | None) -> RecordBlock:
    """The sequences of these index entries in their order, cut to their `length` and to the best `k` entries.

    `None` reads all entries of every row, which then must be equally many; 0 reads text alone. Draws are never cut:
    for sampled rows any `k` above 0 reads all.

    Raises:
        RecordError: sampled rows and log-probabilities, or rows of several K, in one block, or rows of signals.
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    numbers, owner = np.unique(entries["segment"], return_inverse=True)
    found = [segments[number] for number in numbers.tolist()]
    if any(segment.manifest.signals for segment in found):
        raise RecordError("rows of signals cannot be read as sequences: ask TeacherCache.signals for them")
    groups = members(owner, groups=len(found))
    facts = np.zeros(len(entries), dtype=SEQUENCE_FACTS)
    for segment, here in zip(found, groups, strict=True):
        facts[here] = segment.sequences()[entries["row"][here]]
    lengths = entries["length"].astype(np.int64)
    scored = facts["k"] > 0 if k != 0 else np.zeros(len(entries), dtype=bool)
    odd = (lengths > facts["tokens"]) | (scored & (lengths - entries["prompt_len"] > facts["rows"]))
    if odd.any():
        uuid = segments[int(entries["segment"][np.flatnonzero(odd)[0]])].manifest.uuid
        raise DamagedObject(uuid, "columns", "a row is shorter than its key says")
    row_offsets = offsets(np.where(scored, lengths - entries["prompt_len"], 0))
    tokens, token_offsets = gather_tokens(found, groups, facts["token_start"], lengths)
    rows = gather_rows(found, owner, Spans(row_offsets[:-1], facts["row_start"], np.diff(row_offsets)), k=k)
    sources, seeds = (None, None) if rows.counts is None else _sources(found, groups, entries["row"])
    return RecordBlock(
        keys=entries["key"].copy().view(np.uint8).reshape(-1, KEY_BYTES),
        token_ids=tokens,
        token_offsets=token_offsets,
        prompt_len=entries["prompt_len"].astype(np.int32),
        finish=entries["finish"].copy(),
        origin=facts["origin"].copy(),
        policy_version=facts["policy_version"].copy(),
        # Draws keep their own width, log-probabilities are cut to one k.
        k=np.where(scored, facts["k"] if rows.counts is not None else rows.ids.shape[1], 0).astype(np.int32),
        row_offsets=row_offsets,
        topk_ids=rows.ids,
        target_logprobs=rows.facts["target_logprob"].copy(),
        target_ranks=rows.facts["target_rank"].copy(),
        topk_logprobs=rows.logprobs,
        tail_logmass=None if rows.counts is not None else rows.facts["tail_logmass"].copy(),
        counts=rows.counts,
        sampled_from=sources,
        sampling_seed=seeds,
    )


def _sources(
    segments: Sequence[Segment], groups: Sequence[NDArray[np.int64]], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What each record of draws was drawn from, and the seed."""
    sources = np.zeros((len(rows), KEY_BYTES), dtype=np.uint8)
    seeds = np.zeros(len(rows), dtype=np.int64)
    for segment, here in zip(segments, groups, strict=True):
        if segment.encoding is not None:
            sources[here], seeds[here] = segment.sources(rows[here])
    return sources, seeds
