"""`POST /v1/signals` at the door: in both forms, through the cache, for whom it is allowed, and beside other teachers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from doors import IDENTITY, OpenDoor, at_door, scored, why
from signal_builders import assert_same_signal, respond
from signal_doors import CLASSES, FACTS, STATE, Seeing, served_signals

from cache import SignalRecord, SignalRequest
from teacher_server.http.quotas import Quotas
from teacher_server.http.signals.bodies import FailedRow, SignalsAnswer, SignalValues, TeachersBody
from teacher_server.http.signals.wire import decode_signals
from teacher_server.http.wire import MEDIA_TYPE

BODY = {
    "signals": [{"name": "class_logits"}, {"name": "state", "layer": 2, "position": "mean"}],
    "requests": [{"text": "where", "pair": "sun"}, {"words": ["rain"]}],
}
PAIR, WORDS = ((2, 8, 3, 4, 3), 3), ((2, 5, 3), 3)


def expected() -> list[SignalRecord]:
    asked = [SignalRequest(ids, split, signal) for ids, split in (PAIR, WORDS) for signal in (CLASSES, STATE)]
    return [respond(each, width=FACTS.width(each.signal), identity=IDENTITY) for each in asked]


def played(root: Path, play: Any, *, seeing: Seeing | None = None, names: Any = (), **settings: Any) -> None:
    signals = {"head": served_signals(root, seeing or Seeing())}
    at_door(root, play, signals=signals, names=names, **settings)


def test_a_text_is_asked_about_once_and_answered_in_both_forms(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        response = await door.ask("/v1/signals", BODY)
        assert response.status_code == 200, response.text
        answer = SignalsAnswer.model_validate_json(response.content)
        assert (answer.teacher, answer.identity) == ("head", IDENTITY.digest())
        assert [each.signal() for each in answer.signals] == [CLASSES, STATE]
        assert [(tuple(row.token_ids), row.split) for row in answer.rows] == [PAIR, WORDS]
        assert answer.rows[0].places == [None, [0, 0, 5], None, [1, 0, 3], None]
        values = [each for row in answer.rows for each in row.signals]
        for each, record in zip(values, expected(), strict=True):
            assert isinstance(each, SignalValues) and not each.cached
            assert each.values == record.values.tolist()

        again = await door.ask("/v1/signals", BODY, Accept=MEDIA_TYPE)
        assert again.headers["content-type"] == MEDIA_TYPE
        for found, record in zip(decode_signals(again.content, identity=IDENTITY.digest()), expected(), strict=True):
            assert found.cached and isinstance(found.outcome, SignalRecord)
            assert_same_signal(found.outcome, record)
        assert len(seeing.asked) == 2

        told = (await door.told("/metrics")).text
        for result, rows in (("asked", 4), ("hit", 4)):
            assert f'stillroom_rows_total{{result="{result}",teacher="head"}} {rows}.0' in told
        assert 'stillroom_teacher_tokens_total{teacher="head"} 8.0' in told

    seeing = Seeing()
    played(tmp_path, play, seeing=seeing)


def test_a_signal_that_cannot_be_had_fails_alone(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        seeing.deaths = 3
        answer = SignalsAnswer.model_validate_json((await door.ask("/v1/signals", BODY)).content)
        first, second = ([type(each) for each in row.signals] for row in answer.rows)
        assert {*first, *second} == {FailedRow, SignalValues} and len(set(first)) == len(set(second)) == 1

    seeing = Seeing()
    # One after the other, so that one text alone meets the engines that die.
    seeing.signals = _in_turn(seeing.signals)  # type: ignore[method-assign]
    played(tmp_path, play, seeing=seeing)


def _in_turn(ask: Any) -> Any:
    lock = asyncio.Lock()

    async def signals(requests: Any) -> Any:
        async with lock:
            return await ask(requests)

    return signals


def test_it_is_refused_as_a_whole_and_in_one_form(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        for change, code in (
            ({"signals": [{"name": "tag_logits"}]}, "unknown_signal"),
            ({"signals": [{"name": "beliefs"}]}, "invalid_request"),
            ({"requests": [{"text": "sun"}, {"text": ""}]}, "invalid_text"),
            ({"requests": [{"text": "sun " * 9}]}, "text_too_long"),
            ({"requests": []}, "invalid_request"),
            ({"requests": [{"text": "sun", "words": ["sun"]}]}, "invalid_request"),
        ):
            said = why(await door.ask("/v1/signals", BODY | change))
            assert (said["status"], said["code"]) == (422, code), said
        assert said["reason"] == "requests[0].text: Extra inputs are not permitted"
        reader = why(await door.ask("/v1/signals", BODY, scope="read"))
        assert (reader["status"], reader["code"]) == (403, "not_cached")
        assert "requests[0] and 1 more of 2 rows" in reader["reason"] and not seeing.asked
        assert (await door.client.post("/v1/signals", json=BODY)).status_code == 401
        spent = why(await door.ask("/v1/signals", BODY))
        assert (spent["status"], spent["code"]) == (413, "over_quota")
        # What one text takes is charged once for both signals.
        assert (await door.ask("/v1/signals", BODY | {"requests": [{"words": ["rain"]}]})).status_code == 200

    seeing = Seeing()
    played(tmp_path, play, seeing=seeing, quotas=Quotas(tokens_a_minute=7))


def test_teachers_of_both_kinds_stand_behind_one_door(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        teachers = TeachersBody.model_validate_json((await door.told("/v1/teachers")).content)
        assert [each.name for each in teachers.teachers] == ["noise"]
        [head] = teachers.signals
        assert (head.name, head.identity, head.gives) == ("head", IDENTITY.digest(), "class_logits")
        assert (head.labels, head.layers, head.hidden, head.max_tokens) == (["good", "bad", "mixed"], 2, 4, 8)
        assert (await door.ask("/v1/signals", BODY | {"teacher": "head"})).status_code == 200
        assert (await door.ask("/v1/score", {"k": 1, "requests": [scored(1, 2)]})).status_code == 200
        for path, body in (("/v1/signals", BODY), ("/v1/score", {"k": 1, "requests": [scored(1, 2)]})):
            for name, code in (("head", "other_teacher"), ("noise", "other_teacher"), ("ghost", "unknown_teacher")):
                response = await door.ask(path, body | {"teacher": name})
                if (path, name) not in (("/v1/signals", "head"), ("/v1/score", "noise")):
                    assert why(response)["code"] == code

    played(tmp_path, play, names=("noise",))


def test_a_door_to_heads_alone_says_what_it_can_be_asked(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        for path, body in (
            ("/v1/score", {"k": 1, "requests": [scored(1, 2)]}),
            ("/v1/completions", {"model": "head", "prompt": "sun"}),
        ):
            response = await door.ask(path, body)
            assert response.status_code == 422 and "/v1/signals" in response.json()["error"]["reason"]
        assert (await door.told("/v1/models")).json()["data"] == []
        assert (await door.told("/readyz")).status_code == 200

    played(tmp_path, play)
