"""Signals for the tests of the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from store_builders import TEACHER

from cache.identity import TeacherIdentity
from cache.signals import Signal, SignalRecord, SignalRequest, signal_key

CLASSES, TAGS, SPANS = Signal("class_logits"), Signal("tag_logits"), Signal("span_logits")
STATES = [Signal("state", layer=layer, position=place) for layer in (0, 3) for place in ("first", "mean")]
ENCODINGS = ("signal-f32", "signal-f16", "signal-u8")


def ask(tokens: Sequence[int], signal: Signal = CLASSES, *, split: int | None = None) -> SignalRequest:
    """A request about these tokens, which are one text unless `split` says otherwise."""
    return SignalRequest(tuple(tokens), len(tokens) if split is None else split, signal)


def respond(
    request: SignalRequest, *, width: int = 6, identity: TeacherIdentity = TEACHER, scale: float = 3.0
) -> SignalRecord:
    """What a teacher of random weights would say: the same for the same request."""
    key = signal_key(identity.digest(), request)
    rows = request.signal.rows(len(request.token_ids))
    width = 2 if request.signal.name == "span_logits" else width
    values = np.random.default_rng(list(key)).normal(scale=scale, size=(rows, width)).astype(np.float32)
    return SignalRecord(key, np.array(request.token_ids, dtype=np.int32), request.split, request.signal, values)


def some_requests(count: int, *, signals: Sequence[Signal] = (CLASSES, TAGS, *STATES)) -> list[SignalRequest]:
    """Requests about texts of 1 to 9 tokens, every third of them a pair, all signals of a text in a row."""
    rng = np.random.default_rng(count)
    texts = [[100 + at, *rng.integers(4, 40, size=at % 9).tolist()] for at in range(count)]
    return [
        ask(text, signal, split=1 if len(text) > 1 and at % 3 == 0 else None)
        for at, text in enumerate(texts)
        for signal in signals
    ]


def expected_values(record: SignalRecord, *, encoding: str) -> np.ndarray:
    """The values that come back, worked out from the description of the format in float64."""
    values = record.values.astype(np.float64)
    if encoding == "signal-f32":
        return values
    if encoding == "signal-f16":
        return values.astype(np.float16).astype(np.float64)
    low = values.min(axis=1, keepdims=True)
    step = ((values.max(axis=1, keepdims=True) - low) / 254).astype(np.float32).astype(np.float64)
    return low + step * np.rint((values - low) / np.where(step > 0, step, 1))


def assert_same_signal(found: SignalRecord | None, original: SignalRecord, *, encoding: str = "signal-f32") -> None:
    """All of a signal as it was stored."""
    assert found is not None
    assert (found.key, found.split, found.signal) == (original.key, original.split, original.signal)
    np.testing.assert_array_equal(found.token_ids, original.token_ids)
    assert found.values.dtype == np.float32 and found.values.shape == original.values.shape
    if encoding == "signal-f32":
        assert found.values.tobytes() == original.values.tobytes()
    else:
        # What float32 rounds in a sum of numbers as large as the largest.
        rounding = 4e-7 * float(np.abs(original.values).max())
        np.testing.assert_allclose(found.values, expected_values(original, encoding=encoding), rtol=0, atol=rounding)
