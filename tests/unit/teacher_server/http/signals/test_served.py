"""What a body asks of a teacher that gives signals, and what it is refused for before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from signal_doors import CLASSES, FACTS, STATE, Seeing, served_signals

from cache import Signal, SignalRequest
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import DoorLimits
from teacher_server.http.signals.bodies import SignalsBody
from teacher_server.http.signals.served import ServedSignals, SignalInquiry, asked_signals
from teacher_server.http.signals.texts import ReadText

STATE_SAID = {"name": "state", "layer": 2, "position": "mean"}
LIMITS = DoorLimits(most_rows=3, most_tokens=16, most_numbers=21)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSignals]:
    yield served_signals(tmp_path_factory.mktemp("served"), Seeing())


def asked(served: ServedSignals, *rows: Any, signals: Any = ({"name": "class_logits"},)) -> SignalInquiry:
    body = SignalsBody.model_validate({"signals": list(signals), "requests": list(rows)})
    return asked_signals(body, served=served, limits=LIMITS)


def test_every_signal_of_every_text_is_a_question(served: ServedSignals) -> None:
    rows = [{"text": "sun"}, {"token_ids": [2, 5, 3, 4, 3], "split": 3}, {"words": ["rain", "sun"]}]
    inquiry = asked(served, *rows, signals=[{"name": "class_logits"}, STATE_SAID])
    sun, pair, words = (2, 4, 3), (2, 5, 3, 4, 3), (2, 5, 4, 3)
    assert inquiry.questions == [
        SignalRequest(ids, split, signal)
        for ids, split in ((sun, 3), (pair, 3), (words, 4))
        for signal in (CLASSES, STATE)
    ]
    assert inquiry.texts[1].places is None


@pytest.mark.parametrize(
    ("row", "signal", "code", "reason"),
    [
        ({"text": "sun"}, {"name": "tag_logits"}, "unknown_signal", r"signals\[0\]: tag_logits: .* its head gives class_logits"),
        ({"text": "sun"}, STATE_SAID | {"layer": 3}, "unknown_signal", r"state of layer 3, mean: the teacher has 2 layers"),
        ({"text": "sun " * 7}, None, "text_too_long", r"requests\[0\]: 9 tokens, and the teacher reads 8"),
        ({"token_ids": [1] * 9}, None, "text_too_long", "9 tokens"),
        ({"text": " "}, None, "invalid_text", r"requests\[0\]: a text of which no token is made"),
        ({"token_ids": [2, 10]}, None, "invalid_request", r"requests\[0\]: token id 10 is outside the vocabulary of 10"),
        ({"token_ids": [2, 4], "split": 3}, None, "invalid_request", r"requests\[0\]\.split=3 is behind its 2 tokens"),
    ],
)  # fmt: skip
def test_what_the_teacher_cannot_answer_is_refused(
    served: ServedSignals, row: Any, signal: Any, code: str, reason: str
) -> None:
    with pytest.raises(Refusal, match=reason) as refused:
        asked(served, row, signals=[signal or {"name": "class_logits"}])
    assert (refused.value.status, refused.value.code) == (422, code)


@pytest.mark.parametrize(
    ("rows", "signals", "reason"),
    [
        (4, 1, "4 rows at once are more than 3"),
        (3, 1, "18 tokens at once are more than 16"),
        (2, 3, "24 values at once are more than 21"),
    ],
)
def test_too_much_at_once_is_refused(served: ServedSignals, rows: int, signals: int, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as refused:
        asked(served, *[{"text": "sun " * 4}] * rows, signals=[STATE_SAID] * signals)
    assert refused.value.status == 413


def test_engines_are_compared_on_the_head_and_the_last_layer_as_far_as_the_teacher_reads() -> None:
    compared = FACTS.every_kind([ReadText((2, *[4] * 20, 3), 22)])
    assert {each.token_ids for each in compared} == {(2, *[4] * 7)} and {each.split for each in compared} == {8}
    states = [Signal("state", 2, "first"), Signal("state", 2, "last"), STATE]
    assert [each.signal for each in compared] == [*states, CLASSES]
