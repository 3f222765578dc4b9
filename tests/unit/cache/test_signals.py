from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.signals import Signal, SignalRecord, SignalRequest, signal_key, validate_signal
from configs.errors import RecordError

IDENTITY = "ab" * 32

CLASSES = Signal("class_logits")

STATE = Signal("state", layer=3, position="first")

REQUEST = SignalRequest((5, 6, 7), 3, CLASSES)


def record(signal: Signal = CLASSES, *, split: int = 3, width: int = 4) -> SignalRecord:
    tokens = np.array([5, 6, 7], dtype=np.int32)
    values = np.arange(signal.rows(3) * width, dtype=np.float32).reshape(-1, width)
    return SignalRecord(
        key=signal_key(IDENTITY, SignalRequest((5, 6, 7), split, signal)),
        token_ids=tokens,
        split=split,
        signal=signal,
        values=values,
    )


def test_the_key_of_a_signal_stays_what_it_was() -> None:
    assert signal_key(IDENTITY, REQUEST).hex() == "b64f67c1304c81d828b3da3908eddc59dc5c17203128d28d2bcb040b7b6d6012"


def test_the_key_depends_on_teacher_tokens_split_and_what_was_asked() -> None:
    requests = [
        REQUEST,
        replace(REQUEST, token_ids=(5, 6, 8)),
        replace(REQUEST, split=2),
        *(replace(REQUEST, signal=Signal(name)) for name in ("tag_logits", "span_logits")),
        replace(REQUEST, signal=STATE),
        replace(REQUEST, signal=Signal("state", layer=4, position="first")),
        replace(REQUEST, signal=Signal("state", layer=3, position="last")),
    ]
    keys = {signal_key(IDENTITY, request) for request in requests} | {signal_key("cd" * 32, REQUEST)}
    assert len(keys) == len(requests) + 1


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=12), st.data())
def test_no_two_ways_to_cut_a_pair_share_a_key(tokens: list[int], data: st.DataObject) -> None:
    one, other = data.draw(st.integers(1, len(tokens))), data.draw(st.integers(1, len(tokens)))
    keys = {signal_key(IDENTITY, SignalRequest(tuple(tokens), split, CLASSES)) for split in (one, other)}
    assert len(keys) == len({one, other})


@pytest.mark.parametrize(
    ("name", "layer", "position"),
    [
        ("class_logits", 1, "first"),
        ("class_logits", None, "first"),
        ("state", None, None),
        ("state", 1, None),
        ("state", None, "mean"),
        ("state", -1, "mean"),
        ("state", 2**15, "mean"),
        ("state", 1.0, "mean"),
        ("state", "1", "mean"),
        ("state", 1, "middle"),
        ("beliefs", None, None),
        (["state"], 1, "mean"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(name: Any, layer: Any, position: Any) -> None:
    with pytest.raises(RecordError, match="signal "):
        Signal(name, layer=layer, position=position)


@pytest.mark.parametrize(
    ("signal", "width"), [(CLASSES, 77), (STATE, 384), (Signal("tag_logits"), 9), (Signal("span_logits"), 2)]
)
def test_sound_records_pass(signal: Signal, width: int) -> None:
    validate_signal(record(signal, width=width), identity_digest=IDENTITY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": 0}, "split=0"),
        ({"split": 4}, "split=4"),
        ({"split": 2}, "its key is not that of"),
        ({"values": np.zeros((1, 0), np.float32)}, "not \\[rows, width\\]"),
        ({"values": np.zeros((3, 4), np.float32)}, "3 rows where class_logits has 1"),
        ({"values": np.full((1, 4), np.nan, np.float32)}, "not finite"),
        ({"values": np.full((1, 4), np.inf, np.float32)}, "not finite"),
        ({"token_ids": np.array([], np.int32)}, "no tokens"),
        ({"token_ids": np.array([5, -6, 7], np.int32)}, "negative"),
        ({"signal": Signal("span_logits"), "values": np.zeros((3, 3), np.float32)}, "where a span has 2"),
        ({"key": bytes(32)}, "its key is not that of"),
    ],
)
def test_broken_records_are_refused_with_the_rule(change: dict[str, object], reason: str) -> None:
    broken = replace(record(), **change)
    with pytest.raises(RecordError, match=reason):
        validate_signal(broken, identity_digest=IDENTITY)


def test_another_teachers_record_is_refused() -> None:
    with pytest.raises(RecordError, match="and teacher"):
        validate_signal(record(), identity_digest="cd" * 32)


def test_signals_say_what_they_are() -> None:
    assert [str(CLASSES), str(STATE)] == ["class_logits", "state of layer 3, first"]
