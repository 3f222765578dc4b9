"""The binary body of signals comes back as it was, and a damaged one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from doors import IDENTITY
from signal_builders import CLASSES, STATES, TAGS, assert_same_signal, respond

from cache import Signal, SignalRecord, SignalRequest
from cache.protocols import Failure
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.signals.wire import decode_signals, encode_signals
from teacher_server.http.wire import Answered, WireError, pack, unpack

DIGEST = IDENTITY.digest()
TEXTS = [ReadText((2, 4, 3), 3), ReadText((2, 5, 3, 4, 3), 3), ReadText((7,), 1)]
SIGNALS = [CLASSES, TAGS, STATES[1]]


def answers(signals: list[Signal]) -> list[Answered[SignalRecord]]:
    asked = [SignalRequest(text.token_ids, text.split, signal) for text in TEXTS for signal in signals]
    widths = {CLASSES: 3, TAGS: 5, STATES[1]: 64}
    found = [Answered(respond(each, width=widths[each.signal], identity=IDENTITY)) for each in asked]
    return [Answered(each.outcome, cached=at % 2 == 1) for at, each in enumerate(found)]


@pytest.mark.parametrize("signals", [SIGNALS, SIGNALS[:1]])
def test_answers_come_back_as_they_were(signals: list[Signal]) -> None:
    said = answers(signals)
    said[1] = Answered(Failure("it is not finite – said plainly"), cached=False)
    found = decode_signals(encode_signals(said, TEXTS, signals, identity=DIGEST), identity=DIGEST)
    assert [each.cached for each in found] == [each.cached for each in said]
    for one, other in zip(found, said, strict=True):
        if isinstance(other.outcome, SignalRecord):
            assert isinstance(one.outcome, SignalRecord)
            assert_same_signal(one.outcome, other.outcome)
        else:
            assert one.outcome == other.outcome


def changed(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    header, arrays = unpack(encode_signals(answers(SIGNALS), TEXTS, SIGNALS, identity=DIGEST))
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(header, arrays)
    return pack(header, arrays)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head, arrays: head.update(kind="records"), "kind 'records' where signals were due"),
        (lambda head, arrays: head.update(identity="0" * 64), "the door serves another one now"),
        (lambda head, arrays: head.pop("signals"), "do not fit together"),
        (lambda head, arrays: head["signals"].pop(), "counted differently"),
        (lambda head, arrays: head["signals"][0].update(name="beliefs"), "do not fit together"),
        (lambda head, arrays: arrays.update(width=arrays["width"][:-1]), "counted differently"),
        (lambda head, arrays: arrays.update(offsets=arrays["offsets"][::-1].copy()), "one after the other"),
        (lambda head, arrays: arrays.update(values=arrays["values"][:-1]), "one after the other"),
        (lambda head, arrays: arrays["width"].__setitem__(0, 4), "do not fit together"),
        (lambda head, arrays: arrays["split"].__setitem__(0, 9), "do not fit together"),
        (lambda head, arrays: arrays["values"].__setitem__(0, np.nan), "not finite"),
    ],
)  # fmt: skip
def test_a_body_whose_parts_contradict_each_other_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_signals(changed(change), identity=DIGEST)


def test_a_body_that_is_cut_or_damaged_anywhere_is_refused() -> None:
    body = encode_signals(answers(SIGNALS), TEXTS, SIGNALS, identity=DIGEST)
    for at in range(0, len(body), 7):
        with pytest.raises(WireError):
            decode_signals(body[:at], identity=DIGEST)
        with pytest.raises(WireError):
            decode_signals(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], identity=DIGEST)
    assert json.loads(body[12 : 12 + int.from_bytes(body[8:12], "little")])["signals"][2] == {
        "name": "state", "layer": 0, "position": "mean",
    }  # fmt: skip
