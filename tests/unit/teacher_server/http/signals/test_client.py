"""A teacher of signals behind a door: the conformance suite over HTTP, and what only a client promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from doors import IDENTITY, Gated, make_door
from open_app import listening
from signal_builders import TAGS, ask, assert_same_signal, respond
from signal_conformance import *  # noqa: F403
from signal_conformance import Seer, seen
from signal_doors import CLASSES, FACTS, STATE, Seeing, served_signals

from cache import Signal, SignalRecord, SignalRequest
from cache.protocols import Failure
from configs import EngineError
from teacher_server.http.connection import DoorSettings
from teacher_server.http.signals.client import HttpSignals
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.signals.wire import encode_signals
from teacher_server.http.wire import Answered, WireError

FIRST = Signal("state", layer=0, position="first")


@pytest.fixture
def seeing() -> Seeing:
    return Seeing()


@pytest.fixture
def door(tmp_path: Path, seeing: Seeing) -> Iterator[DoorSettings]:
    """A door over a real socket to one teacher of signals beside one of sequences, and how it is asked."""
    served = served_signals(tmp_path, seeing, licence="mit")
    opened = make_door(tmp_path, Gated(open_gate=True), signals={"seer": served})
    with listening(opened.app) as url:
        yield DoorSettings(url, token=opened.tokens.new("test", scopes=["ask"]), batch_rows=2, batches=2, budget_s=10.0)


@pytest.fixture
def teacher(door: DoorSettings) -> Iterator[HttpSignals]:
    with HttpSignals(door) as opened:
        yield opened


@pytest.fixture
def seer(teacher: HttpSignals) -> Seer:
    widths = {CLASSES: len(FACTS.labels), STATE: FACTS.hidden, FIRST: FACTS.hidden}
    return Seer(teacher, widths, longest=FACTS.max_tokens, tolerance=0.0)


def test_the_door_says_who_the_teacher_is(teacher: HttpSignals) -> None:
    assert (teacher.identity, teacher.facts) == (IDENTITY, FACTS)
    assert (teacher.told.name, teacher.told.licence) == ("seer", "mit")


def test_what_is_asked_about_one_text_is_one_question_to_the_teacher(teacher: HttpSignals, seeing: Seeing) -> None:
    requests = [ask((2, 4 + at, 3), signal) for at in range(5) for signal in (CLASSES, STATE)]
    for record, request in zip(seen(teacher, requests), requests, strict=True):
        assert_same_signal(record, respond(request, width=FACTS.width(request.signal), identity=IDENTITY))
    assert sorted(len(each) for each in seeing.asked) == [2] * 5
    # Nobody is asked a second time.
    seen(teacher, requests)
    assert len(seeing.asked) == 5


def test_a_signal_that_the_door_refuses_fails_alone(teacher: HttpSignals) -> None:
    found = dict(teacher.signals([ask((2, 4, 3), signal) for signal in (CLASSES, TAGS, STATE)]))
    assert isinstance(found[0], SignalRecord) and isinstance(found[2], SignalRecord)
    assert isinstance(found[1], Failure) and "its head gives class_logits" in found[1].reason


def test_texts_are_read_by_the_tokenizer_behind_the_door(teacher: HttpSignals) -> None:
    texts = ["sun", ("rain", "sun"), "oslo"]
    found = teacher.read(texts, signals=[CLASSES, STATE])
    expected = [((2, 4, 3), 3), ((2, 5, 3, 4, 3), 3), ((2, 6, 3), 3)]
    for replies, (ids, split) in zip(found, expected, strict=True):
        assert [reply.signal for reply in replies if isinstance(reply, SignalRecord)] == [CLASSES, STATE]
        assert all(isinstance(r, SignalRecord) and (tuple(r.token_ids), r.split) == (ids, split) for r in replies)
    with pytest.raises(EngineError, match="9 tokens, and the teacher reads 8"):
        teacher.read(["sun " * 7], signals=[CLASSES])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": "stillroom_wrong"}, "unknown, expired or revoked"),
        ({"teacher": "noise"}, "serves seer and teacher=noise was asked"),
    ],
)
def test_who_is_not_let_in_is_told_at_once(door: DoorSettings, change: dict[str, str], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        HttpSignals(replace(door, **change))  # type: ignore[arg-type]


def test_a_key_that_may_only_read_gets_what_is_there(tmp_path: Path, seeing: Seeing) -> None:
    opened = make_door(tmp_path, Gated(open_gate=True), signals={"seer": served_signals(tmp_path, seeing)})
    asks, reads = (opened.tokens.new(scope, scopes=[scope]) for scope in ("ask", "read"))
    with listening(opened.app) as url:
        with HttpSignals(DoorSettings(url, token=asks)) as teacher:
            seen(teacher, [ask((2, 4, 3), CLASSES)])
        with HttpSignals(DoorSettings(url, token=reads)) as teacher:
            seen(teacher, [ask((2, 4, 3), CLASSES)])
            with pytest.raises(EngineError, match="are not in the cache"):
                seen(teacher, [ask((2, 5, 3), CLASSES)])


def scripted(answer: Callable[[httpx.Request], httpx.Response]) -> HttpSignals:
    """A client of a door that says who it is, and answers questions as `answer` does."""
    told = {"name": "seer", "identity": IDENTITY.digest(), "licence": None} | {
        "fields": asdict(IDENTITY),
        **{
            name: getattr(FACTS, name)
            for name in ("label", "max_tokens", "vocab", "gives", "labels", "layers", "hidden")
        },
    }

    def respond_to(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"signals": [told]}) if request.method == "GET" else answer(request)

    settings = DoorSettings("https://door", token="secret", budget_s=5.0)
    return HttpSignals(settings, transport=httpx.MockTransport(respond_to))


def body_of(
    *requests: SignalRequest, width: int = len(FACTS.labels), signals: Sequence[Signal] = (CLASSES,),
    identity: str = IDENTITY.digest(),
) -> httpx.Response:  # fmt: skip
    answers = [Answered(respond(each, width=width, identity=IDENTITY)) for each in requests]
    texts = [ReadText(each.token_ids, each.split) for each in requests[:: len(signals)]]
    return httpx.Response(200, content=encode_signals(answers, texts, signals, identity=identity))


ASKED = ask((2, 4, 3), CLASSES)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (lambda: body_of(ask((2, 5, 3), CLASSES)), "of another text"),
        (lambda: body_of(ask((2, 4, 3), CLASSES, split=1)), "of another text"),
        (lambda: body_of(ASKED, ASKED), "2 answers to 1 questions about each of 1 texts"),
        (lambda: body_of(ask((2, 4, 3), STATE), signals=[STATE]), "state of layer 2, mean of 3 values where class_logits"),
        (lambda: body_of(ASKED, width=5), "class_logits of 5 values"),
        (lambda: body_of(ASKED, identity="f" * 64), "answered and not"),
        (lambda: httpx.Response(200, content=b"<html>"), "not an answer of ours"),
        (lambda: httpx.Response(500, text="<html>a page</html>"), "refused /v1/signals: status 500"),
    ],
)  # fmt: skip
def test_a_door_that_lies_or_refuses_is_an_error(said: Callable[[], httpx.Response], error: str) -> None:
    with pytest.raises((EngineError, WireError), match=error):
        seen(scripted(lambda _: said()), [ASKED])


def test_a_door_that_is_busy_or_away_is_tried_again() -> None:
    script: list[httpx.Response | Exception] = [
        httpx.Response(429, headers={"Retry-After": "0.01"}),
        httpx.ConnectError("refused"),
        body_of(ASKED),
    ]

    def answer(_: httpx.Request) -> httpx.Response:
        said = script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    [record] = seen(scripted(answer), [ASKED])
    np.testing.assert_array_equal(record.values, respond(ASKED, width=3, identity=IDENTITY).values)
    assert not script
