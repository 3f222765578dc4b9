"""The binary body of signals: the container of `teacher_server.http.wire` with `kind: "signals"`.

The header names the `signals` that were asked for, each with `name`, `layer` and `position`. B texts with T tokens in
all have A signals each, which are N = B x A answers, those of one text after another, with X values in all:

    token_ids [T] i4, offsets [B+1] i8      the tokens of each text as the teacher sees them, and where they begin
    split [B] i4                            where the second text of a pair begins, behind its tokens without one
    failed, cached [N] u1                   1 where the teacher could not answer (the header's `failures` have the
                                            reason by its number), and where nobody was asked for it
    width [N] i4                            W, 0 of a failed one
    value_offsets [N+1] i8, values [X] f4   where the P x W values of each answer begin, and they, row by row

Keys are not sent: who reads a body computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from cache import SignalRecord, SignalRequest
from cache.protocols import Failure
from cache.signals import Signal, signal_key, validate_signal
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.wire import (
    Answered,
    Array,
    WireError,
    pack,
    require_dimensions,
    require_kind,
    said_failure,
    unpack,
)

KIND = "signals"


def encode_signals(
    answers: Sequence[Answered[SignalRecord]], texts: Sequence[ReadText], signals: Sequence[Signal], *, identity: str
) -> bytes:
    """The body of these answers: every signal of one text after another."""
    values = [
        np.zeros((0, 0), np.float32) if isinstance(each.outcome, Failure) else each.outcome.values for each in answers
    ]
    arrays: dict[str, Array] = {
        "token_ids": np.array([token for text in texts for token in text.token_ids], dtype="<i4"),
        "offsets": _offsets([len(text.token_ids) for text in texts]),
        "split": np.array([text.split for text in texts], dtype="<i4"),
        "failed": np.array([isinstance(each.outcome, Failure) for each in answers], dtype="u1"),
        "cached": np.array([each.cached for each in answers], dtype="u1"),
        "width": np.array([array.shape[1] for array in values], dtype="<i4"),
        "value_offsets": _offsets([array.size for array in values]),
        "values": np.concatenate([array.reshape(-1) for array in values]).astype("<f4"),
    }
    failures = {at: each.outcome.reason for at, each in enumerate(answers) if isinstance(each.outcome, Failure)}
    named = [asdict(signal) for signal in signals]
    return pack({"kind": KIND, "identity": identity, "signals": named, "failures": failures}, arrays)


def decode_signals(body: bytes, *, identity: str) -> list[Answered[SignalRecord]]:
    """The answers of a body, each checked as a signal is before it is kept.

    Raises:
        WireError: the body is damaged or of another format, or another teacher answered than `identity`.
    """
    header, arrays = unpack(body)
    require_kind(header, KIND, identity=identity)
    try:
        signals = [Signal(**said) for said in header["signals"]]
        return list(_answers(arrays, signals, failures=header["failures"], identity=identity))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"an answer whose parts do not fit together: {error}") from error


def _answers(
    arrays: Mapping[str, Array], signals: Sequence[Signal], *, failures: Mapping[str, str], identity: str
) -> Iterator[Answered[SignalRecord]]:
    require_dimensions(arrays)
    tokens, offsets, splits = arrays["token_ids"], arrays["offsets"], arrays["split"]
    values, begins = arrays["values"], arrays["value_offsets"]
    count = len(splits) * len(signals)
    sizes = {len(arrays[name]) for name in ("failed", "cached", "width")} | {len(begins) - 1}
    if sizes != {count} or len(offsets) != len(splits) + 1:
        raise ValueError("its answers are counted differently")
    for marks, whole in ((offsets, tokens), (begins, values)):
        if marks[0] != 0 or marks[-1] != len(whole) or (np.diff(marks) < 0).any():
            raise ValueError("its parts do not lie one after the other")
    for at in range(count):
        cached = bool(arrays["cached"][at])
        if arrays["failed"][at]:
            yield Answered(said_failure(failures, at), cached)
            continue
        text, signal = at // len(signals), signals[at % len(signals)]
        ids, split = tokens[offsets[text] : offsets[text + 1]], int(splits[text])
        request = SignalRequest(tuple(ids.tolist()), split, signal)
        mine = values[begins[at] : begins[at + 1]].reshape(signal.rows(len(ids)), int(arrays["width"][at]))
        record = SignalRecord(signal_key(identity, request), ids, split, signal, mine)
        validate_signal(record, identity_digest=identity)
        yield Answered(record, cached)


def _offsets(lengths: Sequence[int]) -> Array:
    return np.concatenate([[0], np.cumsum(lengths, dtype="<i8")]).astype("<i8")
