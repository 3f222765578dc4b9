"""Reading many signals at once: flat arrays over all of them, filled straight from whole chunks (as `cache.blocks`).

Shapes: R signals of a block with T tokens and N rows in all, W values a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64, UInt8

from cache.blocks import Segments
from cache.disk.gather import Spans, gather_tokens, members, offsets
from cache.disk.key_objects import Table
from cache.disk.signal_columns import signal_of
from cache.disk.signal_rows import SIGNAL_FACTS, gather_values, signal_facts
from cache.keys import KEY_BYTES
from cache.signals import Signal, SignalRecord
from configs.errors import RecordError


@dataclass(frozen=True, slots=True, eq=False)
class SignalBlock:
    """R signals, laid flat. Nothing in it shares memory with the cache.

    Signal i has the rows `offsets[i]` to `offsets[i + 1]` of `values`, and with tokens the tokens `token_offsets[i]` to
    `token_offsets[i + 1]`. `signal`, `layer` and `place` say what was asked, as stored; `asked` says it in words.
    """

    keys: UInt8[np.ndarray, "R 32"]
    values: Float32[np.ndarray, "N W"]
    offsets: Int64[np.ndarray, " R1"]
    split: Int32[np.ndarray, " R"]
    signal: UInt8[np.ndarray, " R"]
    layer: Int16[np.ndarray, " R"]
    place: UInt8[np.ndarray, " R"]
    token_ids: Int32[np.ndarray, " T"] | None = None
    token_offsets: Int64[np.ndarray, " R1"] | None = None

    def __len__(self) -> int:
        return len(self.split)

    def asked(self) -> list[Signal]:
        """What each of them is."""
        stored = zip(self.signal.tolist(), self.layer.tolist(), self.place.tolist(), strict=True)
        found = (signal_of(*numbers) for numbers in stored)
        return [signal for signal in found if signal is not None]  # none is: they were checked when they were loaded

    def records(self) -> list[SignalRecord]:
        """The signals one by one, as slices of this block's arrays, which must have been read with tokens."""
        assert self.token_ids is not None and self.token_offsets is not None, "read without tokens"
        rows, tokens = self.offsets.tolist(), self.token_offsets.tolist()
        return [
            SignalRecord(
                key=self.keys[at].tobytes(),
                token_ids=self.token_ids[tokens[at] : tokens[at + 1]],
                split=int(self.split[at]),
                signal=signal,
                values=self.values[rows[at] : rows[at + 1]],
            )
            for at, signal in enumerate(self.asked())
        ]


def read_signals(segments: Segments, entries: Table, *, with_tokens: bool) -> SignalBlock:
    """The signals of these index entries in their order.

    Raises:
        RecordError: rows of several W in one block, or rows that are not signals.
        DamagedObject: an object differs from its manifest.
        OSError: an object cannot be read.
    """
    numbers, owner = np.unique(entries["segment"], return_inverse=True)
    found = [segments[number] for number in numbers.tolist()]
    if not all(segment.manifest.signals for segment in found):
        raise RecordError("rows of sequences cannot be read as signals: ask TeacherCache for them")
    width = _one_width([segment.manifest.k for segment in found])
    groups = members(owner, groups=len(found))
    facts = np.zeros(len(entries), dtype=SIGNAL_FACTS)
    for segment, here in zip(found, groups, strict=True):
        facts[here] = signal_facts(segment)[entries["row"][here]]
        if (facts["tokens"][here] != entries["length"][here]).any():
            raise segment.odd("a row is shorter or longer than its key says")
    row_offsets = offsets(facts["rows"])
    tokens, token_offsets = None, None
    if with_tokens:
        tokens, token_offsets = gather_tokens(found, groups, facts["token_start"], facts["tokens"])
    return SignalBlock(
        keys=entries["key"].copy().view(np.uint8).reshape(-1, KEY_BYTES),
        values=gather_values(found, owner, Spans(row_offsets[:-1], facts["row_start"], facts["rows"]), width=width),
        offsets=row_offsets,
        split=entries["prompt_len"].astype(np.int32),
        signal=facts["signal"].copy(),
        layer=facts["layer"].copy(),
        place=facts["place"].copy(),
        token_ids=tokens,
        token_offsets=token_offsets,
    )


def _one_width(widths: Sequence[int]) -> int:
    several = sorted(set(widths))
    if len(several) > 1:
        raise RecordError(f"signals of {several} values a row cannot be read together: ask for each width by itself")
    return several[0] if several else 0
