"""Gathering scored rows from the chunks of many segments into one set of arrays.

Shapes: N rows in all, K entries a row. Rows come in spans that follow each other both in a chunk and in the result, so
that most of the work is a slice copy a span. The arithmetic (`held_logprobs`) is done once, over the whole result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from cache.disk.encoding import HELD_TYPES, held_logprobs
from cache.disk.key_objects import Table
from cache.disk.segments import ROW_FACTS, Segment
from cache.disk.shards import Chunk
from configs.errors import RecordError

LONG_SPAN = 16
"""Mean rows a span from which on a slice copy beats gathering row by row."""

Numbers = NDArray[np.int64]

_BYTES = np.dtype(f"V{ROW_FACTS.itemsize}")


@dataclass(frozen=True, slots=True)
class Spans:
    """Runs of rows: `count` of them from `at` on in a source, to `to` and on in a target."""

    to: Numbers
    at: Numbers
    count: Numbers

    def __len__(self) -> int:
        return len(self.count)

    def pick(self, which: slice | Numbers | NDArray[np.bool_]) -> Spans:
        """Some of the spans."""
        return Spans(self.to[which], self.at[which], self.count[which])

    def copy(self, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Copy these rows for each (target, source)."""
        if int(self.count.sum()) < LONG_SPAN * len(self):
            to, at = ranges(self.to, self.count), ranges(self.at, self.count)
            for target, source in pairs:
                target[to] = source[at]
            return
        for to, at, count in zip(self.to.tolist(), self.at.tolist(), self.count.tolist(), strict=True):
            for target, source in pairs:
                target[to : to + count] = source[at : at + count]


@dataclass(frozen=True, slots=True)
class GatheredRows:
    """N rows with their facts [ROW_FACTS]; `counts` stands in for `logprobs` in sampled ones."""

    ids: Int32[np.ndarray, "N K"]
    logprobs: Float32[np.ndarray, "N K"] | None
    counts: Int32[np.ndarray, "N K"] | None
    facts: Table


def gather_rows(segments: Sequence[Segment], owner: Numbers, spans: Spans, *, k: int | None) -> GatheredRows:
    """The rows of spans of which number i lies in `segments[owner[i]]`; `k` as in `cache.blocks.read_block`.

    Raises:
        RecordError: when the rows do not make up one block.
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    scored = [segment for segment in segments if segment.encoding is not None] if k != 0 else []
    sampled, width = _one_kind(scored, k=k)
    rows = int(spans.count.sum())
    facts = np.empty(rows, dtype=ROW_FACTS)
    # Only rows of draws may be narrower than the result.
    ids = np.full((rows, width), -1, dtype=np.int32) if sampled else np.empty((rows, width), dtype=np.int32)
    encodings = {segment.encoding for segment in scored}
    one = encodings.pop() if len(encodings) == 1 else None
    if one is None:
        values = np.empty((rows, width), dtype=np.float32)
    else:
        values = (np.zeros if sampled else np.empty)((rows, width), dtype=HELD_TYPES[one])
    cut = None if sampled else width
    for segment, chunk, here in chunk_spans(segments, owner, spans, load=partial(Segment.row_chunk, k=cut)):
        own = slice(None, chunk.ids.shape[1])
        ready = chunk.values
        if one is None:
            assert segment.encoding is not None
            ready = held_logprobs(chunk.values, chunk.facts["scale"], encoding=segment.encoding)
        # numpy copies fields one by one, and bytes at once.
        here.copy([(ids[:, own], chunk.ids), (values[:, own], ready), (facts.view(_BYTES), chunk.facts.view(_BYTES))])
    if sampled:
        return GatheredRows(ids, None, values.astype(np.int32), facts)
    return GatheredRows(
        ids, values if one is None else held_logprobs(values, facts["scale"], encoding=one), None, facts
    )


def ranges(starts: Numbers, counts: Numbers) -> Numbers:
    """`starts[i], starts[i] + 1, ...`, `counts[i]` of them, for every i in turn."""
    before = np.cumsum(counts) - counts
    found: Numbers = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
    return found


def chunk_spans(
    segments: Sequence[Segment],
    owner: Numbers,
    spans: Spans,
    *,
    load: Callable[[Segment, int], tuple[Hashable, Callable[[], Chunk]]],
) -> Iterator[tuple[Segment, Chunk, Spans]]:
    """Every chunk of rows that is needed, with its segment, and the spans of it.

    `load` gives the name and the loader, for `ChunkCache`, of a chunk of a segment by its number.
    """
    sizes = np.array([segment.chunk_rows for segment in segments], dtype=np.int64)
    spans, owner, number = _joined(*_at_chunks(spans, owner, sizes=sizes))
    if not len(spans):
        return
    name = owner << 32 | number
    order = np.argsort(name, kind="stable")
    starts = np.flatnonzero(np.diff(name[order], prepend=-1))
    first = order[starts]
    holders = [segments[at] for at in owner[first].tolist()]
    loads = [load(segment, at) for segment, at in zip(holders, number[first].tolist(), strict=True)]
    chunks = holders[0].chunks.stream(loads)
    ends = [*starts[1:].tolist(), len(order)]
    spans = spans.pick(order)
    for segment, chunk, start, end in zip(holders, chunks, starts.tolist(), ends, strict=True):
        yield segment, chunk, spans.pick(slice(start, end))


def gather_tokens(
    segments: Sequence[Segment], groups: Sequence[Numbers], starts: Numbers, lengths: Numbers
) -> tuple[NDArray[np.int32], Numbers]:
    """The tokens of sequences, flat, and their offsets.

    Sequences `groups[i]` lie in `segments[i]`; each has `lengths` tokens from `starts` on. Raises like `gather_rows`.
    """
    token_offsets = offsets(lengths)
    tokens = np.empty(int(token_offsets[-1]), dtype=np.int32)
    wanted = Spans(token_offsets[:-1], starts, lengths)
    for segment, here in zip(segments, groups, strict=True):
        wanted.pick(here).copy([(tokens, segment.token_ids())])
    return tokens, token_offsets


def members(owner: Numbers, *, groups: int) -> list[Numbers]:
    """The positions of each of the groups that `owner` numbers."""
    if groups == 0:
        return []
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=groups))[:-1])


def offsets(counts: Numbers) -> Numbers:
    """Where each of these counts begins, and where the last one ends."""
    found = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=found[1:])
    return found


def _one_kind(scored: Sequence[Segment], *, k: int | None) -> tuple[bool, int]:
    """Whether rows are sampled, and K of the result."""
    kinds = {segment.kind for segment in scored}
    if not kinds:
        return False, k or 0
    if len({sampled for sampled, _ in kinds}) > 1:
        raise RecordError("rows of draws and rows of log-probabilities cannot be read together: read them separately")
    widths = sorted(width for _, width in kinds)
    (sampled, _), *_ = kinds
    if sampled:
        return True, widths[-1]
    if k is None and len(widths) > 1:
        raise RecordError(f"rows of k={widths} cannot be read together: name the k to cut them to")
    if k is not None and widths[0] < k:
        raise RecordError(f"rows of k={widths[0]} cannot be read with k={k}")
    return False, widths[0] if k is None else k


def _at_chunks(spans: Spans, owner: Numbers, *, sizes: Numbers) -> tuple[Spans, Numbers, Numbers]:
    """The spans cut where a chunk ends, the owner of each and the number of its chunk; `at` then counts from there."""
    held = spans.count > 0
    spans, owner = spans.pick(held), owner[held]
    size = sizes[owner]
    first = spans.at // size
    parts = (spans.at + spans.count - 1) // size - first + 1
    whole = np.repeat(np.arange(len(spans)), parts)
    number = first[whole] + np.arange(len(whole)) - np.repeat(np.cumsum(parts) - parts, parts)
    start = number * size[whole]
    at = np.maximum(spans.at[whole], start)
    end = np.minimum((spans.at + spans.count)[whole], start + size[whole])
    return Spans(spans.to[whole] + at - spans.at[whole], at - start, end - at), owner[whole], number


def _joined(spans: Spans, owner: Numbers, number: Numbers) -> tuple[Spans, Numbers, Numbers]:
    """One span where the next begins right behind the last, as in a reading in stored order."""
    if not len(spans):
        return spans, owner, number
    follows = (spans.at[1:] == (spans.at + spans.count)[:-1]) & (owner[1:] == owner[:-1]) & (number[1:] == number[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    return Spans(spans.to[first], spans.at[first], np.add.reduceat(spans.count, first)), owner[first], number[first]
