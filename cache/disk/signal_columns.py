"""The columns that a segment of signals has beside tokens, lengths and offsets: what was asked, and the values.

Shapes: R sequences (one signal of one sequence each), P rows in all, W values a row. Sequence i has the rows
`row_offsets[i]` to `row_offsets[i + 1]`: one, or as many as it has tokens.

A segment has one W and one encoding (`cache.disk.signal_encoding`). Several signals of one text repeat its tokens; they
stand side by side, where compression takes the repetition away if the bytes, and not the bits, of their integers are
shuffled: twelve states of a text of 25 tokens cost 2.6 bytes each for its tokens, and 13.9 with shuffled bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.disk.shards import ChunkLayout, Shuffle
from cache.disk.signal_encoding import HELD, SCALE, SignalEncoding
from cache.signals import POSITIONS, SIGNAL_NAMES, Signal, SignalRecord
from configs.errors import RecordError

SIGNAL_COLUMNS = {"signal": "u1", "layer": "<i2", "place": "u1"}
"""One value a sequence: positions in `SIGNAL_NAMES` and `POSITIONS`, and a layer."""

NO_LAYER, NO_PLACE = -1, 255

FILLS = {"place": 254}
"""Fill values that cannot be data, where the largest number of a type can."""


def signal_layouts(
    *, rows: int, scored_rows: int, k: int, chunk_rows: int, encoding: SignalEncoding
) -> dict[str, ChunkLayout]:
    """Chunk layouts of the columns of this module: `scored_rows` is P and `k` is W."""
    found = {name: ChunkLayout(np.dtype(kind), (rows,), 1) for name, kind in SIGNAL_COLUMNS.items()}
    name, kind = HELD[encoding]
    # Floats compress better by shuffled bytes, 8-bit values by shuffled bits.
    shuffle: Shuffle = "bit" if encoding == "signal-u8" else "byte"
    found[name] = ChunkLayout(np.dtype(kind), (chunk_rows, k), -(-scored_rows // chunk_rows), shuffle=shuffle)
    if encoding == "signal-u8":
        found |= {name: ChunkLayout(np.dtype("<f4"), (scored_rows,), 1) for name in SCALE.names or ()}
    return found


def asked_columns(records: Sequence[SignalRecord]) -> dict[str, NDArray[Any]]:
    """The columns of `SIGNAL_COLUMNS`."""
    asked = [record.signal for record in records]
    layers = [NO_LAYER if signal.layer is None else signal.layer for signal in asked]
    places = [NO_PLACE if signal.position is None else POSITIONS.index(signal.position) for signal in asked]
    return {
        "signal": np.array([SIGNAL_NAMES.index(signal.name) for signal in asked], dtype="u1"),
        "layer": np.array(layers, dtype="<i2"),
        "place": np.array(places, dtype="u1"),
    }


def signal_of(signal: int, layer: int, place: int) -> Signal | None:
    """What these three values stand for; `None` for what no writer writes."""
    if signal >= len(SIGNAL_NAMES) or (place != NO_PLACE and place >= len(POSITIONS)) or layer < NO_LAYER:
        return None
    position = None if place == NO_PLACE else POSITIONS[place]
    try:
        return Signal(SIGNAL_NAMES[signal], None if layer == NO_LAYER else layer, position)
    except RecordError:
        return None
