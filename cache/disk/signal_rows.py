"""Reading signals from segments: what is asked of each sequence, and its values gathered from whole chunks.

Shapes: N rows in all, W values a row. Values are gathered in the small type in which they are stored and decoded once,
over the whole result, unless rows of several encodings meet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from cache.disk.gather import Numbers, Spans, chunk_spans
from cache.disk.key_objects import Table
from cache.disk.segments import Segment
from cache.disk.signal_columns import SIGNAL_COLUMNS, signal_of
from cache.disk.signal_encoding import HELD, SCALE, SignalEncoding, decode_values, scale_of
from cache.signals import PER_TOKEN

SIGNAL_FACTS = np.dtype(
    [
        ("token_start", "<i8"),
        ("tokens", "<i8"),
        ("row_start", "<i8"),
        ("rows", "<i8"),
        *((name, kind) for name, kind in SIGNAL_COLUMNS.items()),
    ]
)
"""What is read of a signal together: its tokens and rows (start, count), and what was asked, as stored."""

_SCALE_BYTES = np.dtype(f"V{SCALE.itemsize}")


@dataclass(frozen=True, slots=True)
class SignalChunk:
    """A chunk of n rows, ready to be gathered from: `values` as stored, and the `scale` [SCALE] of each row."""

    values: NDArray[Any]
    scale: Table

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.values.nbytes + self.scale.nbytes


def encoding_of(segment: Segment) -> SignalEncoding:
    """How the values of a segment of signals are kept."""
    return cast(SignalEncoding, segment.manifest.encoding)


def signal_facts(segment: Segment) -> Table:
    """The facts [SIGNAL_FACTS] of all rows of a segment of signals.

    Raises:
        DamagedObject: an object differs from its manifest, or says what no writer writes.
        OSError: an object cannot be read.
    """
    return segment.chunks.get((segment.manifest.uuid, "signals"), partial(_load_facts, segment))


def gather_values(
    segments: Sequence[Segment], owner: Numbers, spans: Spans, *, width: int
) -> Float32[np.ndarray, "N W"]:
    """The values of spans of rows, of which number i lies in `segments[owner[i]]`; all have the same W.

    Raises:
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    rows = int(spans.count.sum())
    encodings = {encoding_of(segment) for segment in segments}
    one = encodings.pop() if len(encodings) == 1 else None
    values = np.empty((rows, width), dtype=np.float32 if one is None else HELD[one][1])
    scale = np.zeros(rows, dtype=SCALE)
    for segment, chunk, here in chunk_spans(segments, owner, spans, load=_chunk):
        if one is None:
            here.copy([(values, decode_values(chunk.values, chunk.scale, encoding=encoding_of(segment)))])
            continue
        pairs = [(values, chunk.values)]
        if one == "signal-u8":
            pairs.append((scale.view(_SCALE_BYTES), chunk.scale.view(_SCALE_BYTES)))
        here.copy(pairs)
    if one is None or one == "signal-f32":
        return cast(NDArray[np.float32], values)
    return decode_values(values, scale, encoding=one)


def _chunk(segment: Segment, number: int) -> tuple[Hashable, Callable[[], SignalChunk]]:
    """Name and loader of a chunk of rows."""
    return (segment.manifest.uuid, "values", number), partial(_load_chunk, segment, number)


def _load_chunk(segment: Segment, number: int) -> SignalChunk:
    encoding = encoding_of(segment)
    values = segment.part(HELD[encoding][0], number)
    scales = {name: segment.part(name, number) for name in SCALE.names or ()} if encoding == "signal-u8" else {}
    return SignalChunk(values, scale_of(scales, rows=len(values) if scales else 0))


def _load_facts(segment: Segment) -> Table:
    facts = np.empty(segment.manifest.rows, dtype=SIGNAL_FACTS)
    tokens, rows = segment.chunk("token_offsets"), segment.chunk("row_offsets")
    facts["token_start"], facts["tokens"] = tokens[:-1], np.diff(tokens)
    facts["row_start"], facts["rows"] = rows[:-1], np.diff(rows)
    for name in SIGNAL_COLUMNS:
        facts[name] = segment.chunk(name)
    # One number for what was asked is sorted much faster than three fields.
    numbers = facts["layer"].astype(np.int64) << 16 | facts["place"].astype(np.int64) << 8 | facts["signal"]
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    asked = [signal_of(*values) for values in facts[first][[*SIGNAL_COLUMNS]].tolist()]
    if None in asked:
        raise segment.odd("signal, layer and place have values of no signal")
    per_token = np.array([signal is not None and signal.name in PER_TOKEN for signal in asked], dtype=bool)
    if (facts["rows"] != np.where(per_token[group], facts["tokens"], 1)).any():
        raise segment.odd("a signal has another number of rows than its tokens ask for")
    return facts
