"""A teacher behind a door: the conformance suite over HTTP, and what only a client promises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from conformance import *  # noqa: F403
from conformance import PROMPTS, Subject, greedy, records
from doors import IDENTITY, VOCAB, make_door
from open_app import listening

from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs import EngineError, RecordError
from teacher_server import FakeTeacher
from teacher_server.http.client import HttpTeacher
from teacher_server.http.connection import DoorSettings
from teacher_server.http.stepping import SteppedEngine
from teacher_server.http.wire import MEDIA_TYPE, Answered, WireError, encode_records
from teacher_server.requests import Asked

MAX_MODEL_LEN = 64


@pytest.fixture
def door(tmp_path: Path) -> Iterator[DoorSettings]:
    """A door over a real socket, and how it is asked."""
    engine = SteppedEngine(FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=2, max_model_len=MAX_MODEL_LEN))
    opened = make_door(tmp_path, engine, most_k=VOCAB)
    with listening(opened.app) as url:
        yield DoorSettings(url, token=opened.tokens.new("test", scopes=["ask"]), batch_rows=4, budget_s=10.0)
    engine.close()


@pytest.fixture
def teacher(door: DoorSettings) -> Iterator[HttpTeacher]:
    with HttpTeacher(door) as opened:
        yield opened


@pytest.fixture
def subject(teacher: HttpTeacher) -> Subject:
    return Subject(source=teacher, vocab=VOCAB, max_sequences=16, max_model_len=MAX_MODEL_LEN, tolerance=0.0)


def test_the_door_says_who_the_teacher_is(teacher: HttpTeacher) -> None:
    assert teacher.identity == IDENTITY
    assert (teacher.facts.vocab, teacher.facts.max_model_len, teacher.facts.stop_ids) == (VOCAB, MAX_MODEL_LEN, (2,))


def test_a_row_that_the_door_refuses_fails_alone(teacher: HttpTeacher) -> None:
    # A stop that the teacher has no such token for is nothing that the client looks at.
    bad = GenerateRequest((1, 5), (VOCAB,), 4)
    outcomes = dict(teacher.generate([greedy(PROMPTS[0]), bad, greedy(PROMPTS[1]), bad], k=2))
    assert isinstance(outcomes[0], TeacherRecord) and isinstance(outcomes[2], TeacherRecord)
    refused = [outcome.reason for outcome in outcomes.values() if isinstance(outcome, Failure)]
    assert len(refused) == 2 and all(f"stop id {VOCAB} is outside" in reason for reason in refused)


def test_what_was_asked_once_costs_nothing_again(door: DoorSettings, teacher: HttpTeacher) -> None:
    first = records(teacher.generate([greedy(prompt) for prompt in PROMPTS], k=3))
    with HttpTeacher(door) as other:
        again = records(other.generate([greedy(prompt) for prompt in PROMPTS], k=3))
    assert [one.key for one in first] == [one.key for one in again]


def test_requests_of_both_kinds_and_several_k_go_side_by_side(teacher: HttpTeacher) -> None:
    asked: list[Asked | None] = [
        Asked(greedy(PROMPTS[0]), 0),
        Asked(ScoreRequest((1, 5, 6), 1), 4),
        None,
        Asked(greedy(PROMPTS[1]), 2),
    ]
    outcomes = {at: outcome for finished in teacher.work(asked) for at, outcome in finished}
    assert [outcome.k for _, outcome in sorted(outcomes.items()) if isinstance(outcome, TeacherRecord)] == [0, 4, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": None}, "give Authorization"),
        ({"token": "stillroom_wrong"}, "unknown, expired or revoked"),
        ({"teacher": "other"}, "serves noise and teacher=other was asked"),
    ],
)
def test_who_is_not_let_in_is_told_at_once(door: DoorSettings, change: dict[str, str | None], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        HttpTeacher(replace(door, **change))  # type: ignore[arg-type]


def test_more_log_probabilities_than_there_are_is_refused_here(teacher: HttpTeacher) -> None:
    with pytest.raises(EngineError, match=f"k={VOCAB + 1} is outside"):
        teacher.generate([], k=VOCAB + 1)


def test_the_token_is_seen_nowhere(door: DoorSettings, teacher: HttpTeacher, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    records(teacher.generate([greedy(PROMPTS[0])], k=1))
    assert door.token is not None
    assert door.token not in caplog.text + repr(door) + repr(teacher) + repr(teacher.facts)


def scripted(answer: Callable[[httpx.Request], httpx.Response], *, budget_s: float = 5.0) -> HttpTeacher:
    """A client of a door that says who it is, and answers questions as `answer` does."""
    told = {
        "name": "noise",
        "identity": IDENTITY.digest(),
        "fields": {name: getattr(IDENTITY, name) for name in IDENTITY.__slots__},
        "vocab": VOCAB,
        "most_k": 8,
        "max_model_len": 64,
        "stop_ids": [2],
        "licence": None,
    }

    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"teachers": [told]})
        return answer(request)

    settings = DoorSettings("https://door", token="secret", budget_s=budget_s)
    return HttpTeacher(settings, transport=httpx.MockTransport(respond))


def body_of(*outcomes: TeacherRecord | Failure, identity: str = IDENTITY.digest()) -> httpx.Response:
    content = encode_records([Answered(each) for each in outcomes], identity=identity)
    return httpx.Response(200, content=content, headers={"Content-Type": MEDIA_TYPE})


SOURCE = FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=2)
[(_, RIGHT)] = SOURCE.generate([greedy(PROMPTS[0])], k=2)
[(_, OTHER)] = SOURCE.generate([greedy(PROMPTS[1])], k=2)


def test_a_door_that_is_busy_or_away_is_tried_again() -> None:
    script: list[httpx.Response | Exception] = [
        httpx.Response(429, headers={"Retry-After": "0.01"}),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"error": {"reason": "draining"}}, headers={"Retry-After": "0"}),
        body_of(RIGHT),
    ]

    def answer(_: httpx.Request) -> httpx.Response:
        said = script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    [record] = records(scripted(answer).generate([greedy(PROMPTS[0])], k=2))
    assert isinstance(RIGHT, TeacherRecord) and record.key == RIGHT.key and not script


def test_a_door_that_stays_away_is_given_up_within_the_budget() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(EngineError, match=r"https://door cannot be reached \(ConnectError: refused\), tried for 0.3 s"):
        list(scripted(away, budget_s=0.3).generate([greedy(PROMPTS[0])], k=2))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (lambda: body_of(OTHER), "do not belong"),
        (lambda: body_of(RIGHT, RIGHT), "2 answers that do not belong to the 1 requests"),
        (lambda: body_of(RIGHT, identity="f" * 64), "answered and not"),
        (lambda: httpx.Response(200, content=b"<html>"), "not an answer of ours"),
        (lambda: httpx.Response(500, text="<html>a page</html>"), "refused /v1/generate: status 500"),
        (lambda: httpx.Response(403, json={"error": {"reason": "the key may only read"}}), "the key may only read"),
    ],
)
def test_a_door_that_lies_or_refuses_is_an_error(said: Callable[[], httpx.Response], error: str) -> None:
    with pytest.raises((EngineError, WireError), match=error):
        list(scripted(lambda _: said()).generate([greedy(PROMPTS[0])], k=2))


@pytest.mark.parametrize("places", [(1, 0), (1, 1)])
def test_rows_that_are_not_those_of_their_tokens_are_not_an_answer(places: tuple[int, int]) -> None:
    """A door that shifts or repeats rows sends what is sound by itself; what every token was given tells."""
    [(_, right)] = SOURCE.generate([replace(greedy(PROMPTS[0]), max_new_tokens=2)], k=8)
    assert isinstance(right, TeacherRecord) and right.topk_ids is not None and right.topk_logprobs is not None
    assert right.tail_logmass is not None and right.response_len == 2
    taken = list(places)
    shifted = replace(
        right,
        topk_ids=right.topk_ids[taken],
        topk_logprobs=right.topk_logprobs[taken],
        tail_logmass=right.tail_logmass[taken],
    )
    asked = [replace(greedy(PROMPTS[0]), max_new_tokens=2)]
    with pytest.raises(WireError, match="not those of their tokens, at response token 0"):
        list(scripted(lambda _: body_of(shifted)).generate(asked, k=8))


def test_ids_beyond_the_vocabulary_are_not_an_answer() -> None:
    assert isinstance(RIGHT, TeacherRecord) and RIGHT.topk_ids is not None
    ids = RIGHT.topk_ids.copy()
    ids[0, 1] = VOCAB
    with pytest.raises(RecordError, match=f"top-k id {VOCAB} outside"):
        list(scripted(lambda _: body_of(replace(RIGHT, topk_ids=ids))).generate([greedy(PROMPTS[0])], k=2))


def test_whoever_is_let_go_waits_for_no_door() -> None:
    """A door that is asked and says nothing, until the test is over."""
    asked, over = threading.Event(), threading.Event()

    def silent(_: httpx.Request) -> httpx.Response:
        asked.set()
        over.wait(60)
        raise httpx.ConnectError("over")

    teacher = scripted(silent, budget_s=600.0)
    closing = threading.Thread(target=lambda: (asked.wait(60), teacher.close()))
    closing.start()
    with pytest.raises(EngineError, match="let go"):
        list(teacher.generate([greedy(PROMPTS[0])], k=2))
    over.set()
    closing.join()


@pytest.mark.parametrize("url", ["http://door.example", "http://10.0.0.7:8100", "http://localhost.example:1"])
def test_a_token_goes_to_no_other_machine_unencrypted(url: str) -> None:
    asked: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(200, json={}))
    with pytest.raises(EngineError, match="unencrypted to another machine: ask the door over https") as raised:
        HttpTeacher(DoorSettings(url, token="stillroom_hidden"), transport=transport)
    assert not asked and "stillroom_hidden" not in str(raised.value)


def test_no_password_stands_in_the_address() -> None:
    with pytest.raises(EngineError, match=r"the door at door\.example holds a user or password") as raised:
        HttpTeacher(DoorSettings("https://me:hidden@door.example"))
    assert "hidden" not in str(raised.value)


def test_text_in_place_of_log_probabilities_is_not_an_answer() -> None:
    [(_, text)] = SOURCE.generate([greedy(PROMPTS[0])], k=0)
    with pytest.raises(WireError, match="do not belong"):
        list(scripted(lambda _: body_of(text)).generate([greedy(PROMPTS[0])], k=2))


@pytest.mark.parametrize("told", [{}, {"teachers": [{"name": "x"}]}, {"teachers": []}, [1]])
def test_a_server_that_is_not_a_door_is_noticed(told: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=told))
    with pytest.raises(EngineError, match=r"does not say who|serves no teacher"):
        HttpTeacher(DoorSettings("https://door"), transport=transport)


def test_an_identity_that_does_not_fit_its_digest_is_refused() -> None:
    told = {"name": "x", "identity": "0" * 64, "fields": {name: getattr(IDENTITY, name) for name in IDENTITY.__slots__}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"teachers": [told]}))
    with pytest.raises(EngineError, match="not that of its identity"):
        HttpTeacher(DoorSettings("https://door"), transport=transport)
