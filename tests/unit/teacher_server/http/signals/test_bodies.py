"""The JSON of signals is strict."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cache import Signal
from teacher_server.http.signals.bodies import AboutIds, AboutText, AboutWords, SignalsBody


def body(signal: Any = None, row: Any = None) -> SignalsBody:
    signal = {"name": "class_logits"} if signal is None else signal
    return SignalsBody.model_validate({"signals": [signal], "requests": [{"text": "sun"} if row is None else row]})


def test_a_text_is_said_in_three_ways() -> None:
    assert isinstance(body().requests[0], AboutText)
    assert isinstance(body(row={"words": ["sun"]}).requests[0], AboutWords)
    assert isinstance(body(row={"token_ids": [1], "split": 1}).requests[0], AboutIds)
    state = body(signal={"name": "state", "layer": 0, "position": "first"}).signals[0]
    assert state.signal() == Signal("state", 0, "first")


@pytest.mark.parametrize(
    "signal",
    [
        {"name": "beliefs"},
        {"name": "state"},
        {"name": "state", "layer": True, "position": "first"},
        {"name": "state", "layer": "1", "position": "first"},
        {"name": "state", "layer": 1, "position": "middle"},
        {"name": "state", "layer": -1, "position": "first"},
        {"name": "class_logits", "layer": 1, "position": "first"},
        {"name": "class_logits", "temperature": 2},
        "class_logits",
    ],
)
def test_a_signal_that_there_is_not_is_refused(signal: Any) -> None:
    with pytest.raises(ValidationError):
        body(signal=signal)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"pair": "sun"},
        {"text": 3},
        {"text": "\ud800"},
        {"text": "sun", "words": ["sun"]},
        {"words": []},
        {"words": "sun"},
        {"token_ids": []},
        {"token_ids": [-1]},
        {"token_ids": [True]},
        {"token_ids": [1], "split": 0},
        "sun",
    ],
)
def test_a_text_that_is_not_said_in_one_way_is_refused(row: Any) -> None:
    with pytest.raises(ValidationError):
        body(row=row)
