"""What a teacher believes about a whole sequence or its tokens, beside next-token distributions: signals.

A signal is one array of one sequence: the logits of its classes, of the tags of its tokens, of where a span begins and
ends, or the hidden state of one layer at one position. It is kept as the teacher gave it, never softened, and is named
by the teacher, by the token ids as the teacher saw them (special tokens included), by where the second text of a pair
begins, and by what was asked: never by order. States of M layers at P positions are M x P signals, so a subset of them,
or another order, is answered by what is there.

Shapes: T tokens of a sequence, P rows of a signal (1, or T where it speaks of tokens), W values a row: C classes or
tags, 2 for spans, H of a hidden state. Logits are as the head gives them, in nats up to a constant a row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NewType, get_args

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from cache.canonical import canonical, token_bytes
from configs.errors import RecordError

SignalKey = NewType("SignalKey", bytes)

SignalName = Literal["class_logits", "tag_logits", "span_logits", "state"]
SIGNAL_NAMES: tuple[SignalName, ...] = get_args(SignalName)
"""Stored as their position."""

Position = Literal["first", "last", "mean"]
POSITIONS: tuple[Position, ...] = get_args(Position)
"""Stored as their position. `mean` is over all tokens of the sequence."""

PER_TOKEN: frozenset[SignalName] = frozenset({"tag_logits", "span_logits"})
"""Signals with one row a token; the others have one row a sequence."""

SPAN_WIDTH = 2
"""W of `span_logits`: the logits of being the first and the last token of the span."""

LARGEST_LAYER = 2**15 - 1


@dataclass(frozen=True, slots=True, order=True)
class Signal:
    """What is asked about a sequence.

    `layer` and `position` belong to a `state`, and only to it: layer 0 is the output of the embeddings, layer i that of
    the i-th block.
    """

    name: SignalName
    layer: int | None = None
    position: Position | None = None

    def __post_init__(self) -> None:
        placed = self.layer is not None and self.position is not None
        if (self.name == "state") != placed or (self.layer is None) != (self.position is None):
            raise RecordError(
                f"signal {self.name} with layer={self.layer}, position={self.position}: a state has both, nothing else "
                "has either"
            )
        if self.name not in SIGNAL_NAMES:
            raise RecordError(f"signal {self.name} is unknown: choose one of {', '.join(SIGNAL_NAMES)}")
        if self.position is not None and self.position not in POSITIONS:
            raise RecordError(f"signal state at position={self.position}: choose one of {', '.join(POSITIONS)}")
        if self.layer is not None and not (isinstance(self.layer, int) and 0 <= self.layer <= LARGEST_LAYER):
            raise RecordError(f"signal state with layer={self.layer}: not a whole number in 0..{LARGEST_LAYER}")

    def rows(self, tokens: int) -> int:
        """P for a sequence of `tokens` tokens."""
        return tokens if self.name in PER_TOKEN else 1

    def __str__(self) -> str:
        return self.name if self.layer is None else f"{self.name} of layer {self.layer}, {self.position}"


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A sequence as the teacher sees it, and what it is asked.

    `split` is where the second text of a pair begins (0 < split < T); T when there is one text.
    """

    token_ids: tuple[int, ...]
    split: int
    signal: Signal


@dataclass(frozen=True, slots=True, eq=False)
class SignalRecord:
    """The answer to a `SignalRequest`: `values` [P, W], finite, float32."""

    key: bytes
    token_ids: Int32[np.ndarray, " T"]
    split: int
    signal: Signal
    values: Float32[np.ndarray, "P W"]

    @property
    def width(self) -> int:
        """W."""
        return int(self.values.shape[1])


def signal_key(identity_digest: str, request: SignalRequest) -> SignalKey:
    """The name of what a teacher answers to a request.

    Raises:
        RecordError: when a token id is outside 0..2**31-1.
    """
    said = canonical(int(request.split), token_bytes(request.token_ids))
    return SignalKey(hashlib.sha256(_asked(identity_digest, request.signal) + said).digest())


def validate_signal(record: SignalRecord, *, identity_digest: str) -> None:
    """Refuse a record that breaks the rules of the module's docstring, or is not named by its own key.

    Raises:
        RecordError: naming the key and the rule.
    """
    reason = _broken_rule(record)
    if reason is None:
        request = SignalRequest(tuple(record.token_ids.tolist()), record.split, record.signal)
        if signal_key(identity_digest, request) != record.key:
            reason = "its key is not that of its tokens, split, signal and teacher"
    if reason is not None:
        raise RecordError(f"signal {record.key.hex()[:12]} refused: {reason}")


@lru_cache(maxsize=1024)
def _asked(identity_digest: str, signal: Signal) -> bytes:
    """How the name of every answer of a teacher to one question begins."""
    layer = -1 if signal.layer is None else signal.layer
    return canonical("stillroom/signal/1", identity_digest, signal.name, layer, signal.position or "")


def _broken_rule(record: SignalRecord) -> str | None:
    tokens, values = len(record.token_ids), record.values
    if not tokens or int(record.token_ids.min()) < 0:
        return "it has no tokens, or a negative one"
    if not 0 < record.split <= tokens:
        return f"split={record.split} outside 1..{tokens}"
    if values.ndim != 2 or values.shape[1] == 0:
        return f"values of shape {values.shape} are not [rows, width]"
    rows = record.signal.rows(tokens)
    if len(values) != rows:
        return f"{len(values)} rows where {record.signal} has {rows}"
    if record.signal.name == "span_logits" and record.width != SPAN_WIDTH:
        return f"{record.width} values a row where a span has {SPAN_WIDTH}"
    return None if _finite(values) else "a value is not finite"


def _finite(values: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(values).all())
