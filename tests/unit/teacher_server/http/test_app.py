"""The door as a whole: what is asked once, what is told, and whether it is what its description says."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path

import httpx
import pytest
import schemathesis
from doors import EOS, FACTS, IDENTITY, TEACHER, VOCAB, Gated, OpenDoor, at_door, make_door, scored, why, written
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from signal_doors import Seeing, served_signals

from cache import TeacherCache
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs import CacheError
from teacher_server.http.bodies import AnswerBody
from teacher_server.http.exchange import ACCESS_LOG
from teacher_server.http.layers import OPENAI
from teacher_server.http.quotas import Quotas
from teacher_server.http.signals.bodies import TeachersBody
from teacher_server.http.wire import MEDIA_TYPE, Answered, decode_records

ASKED = {"k": 2, "requests": [written(1, 5), written(1, 6)]}


def exact(request: GenerateRequest | ScoreRequest, *, k: int) -> TeacherRecord:
    """What the teacher answers."""
    source = TEACHER.generate if isinstance(request, GenerateRequest) else TEACHER.score
    [(_, record)] = source([request], k=k)  # type: ignore[operator]
    assert isinstance(record, TeacherRecord)
    return record


def records(response: httpx.Response) -> list[Answered[TeacherRecord]]:
    assert response.status_code == 200 and response.headers["content-type"] == MEDIA_TYPE
    return decode_records(response.content, identity=IDENTITY.digest())


def test_answers_are_those_of_the_teacher_in_both_forms(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        generate, score = GenerateRequest((1, 5), (EOS,), 4), ScoreRequest((1, 9, 5), 1)
        for path, row, request in (("generate", written(1, 5), generate), ("score", scored(1, 9, 5), score)):
            expected = exact(request, k=2)
            body = {"teacher": "noise", "k": 2, "requests": [row]}
            plain = await door.ask(f"/v1/{path}", body)
            assert plain.status_code == 200 and plain.headers["content-type"] == "application/json"
            answer = AnswerBody.model_validate_json(plain.content)
            assert answer.identity == IDENTITY.digest() and answer.teacher == "noise"
            [arrays] = records(await door.ask(f"/v1/{path}", body, Accept=MEDIA_TYPE))
            assert isinstance(arrays.outcome, TeacherRecord) and arrays.cached
            assert arrays.outcome.key == expected.key
            for each in (answer.rows[0].token_ids, arrays.outcome.token_ids.tolist()):  # type: ignore[union-attr]
                assert each == expected.token_ids.tolist()

    at_door(tmp_path, play)


def test_the_second_time_nobody_is_asked(tmp_path: Path) -> None:
    gated = Gated(open_gate=True)

    async def play(door: OpenDoor) -> None:
        for cached in (False, True):
            rows = (await door.ask("/v1/generate", ASKED)).json()["rows"]
            assert [row["cached"] for row in rows] == [cached, cached]
        assert len(gated.asked) == 2

    at_door(tmp_path, play, asking=gated)
    assert TeacherCache.open(tmp_path / "cache", IDENTITY).lookup(gated.asked, k=2) != [None, None]


def test_equal_requests_at_once_are_asked_once(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        waiting = [asyncio.create_task(door.ask("/v1/generate", ASKED)) for _ in range(3)]
        await gated.until_asked(2)
        while door.desk.counts.shared < 4:
            await asyncio.sleep(0.005)
        gated.gate.set()
        bodies = [json.loads((await task).content) for task in waiting]
        assert len(gated.asked) == 2 and bodies[0] == bodies[1] == bodies[2]

    at_door(tmp_path, play, asking=gated)


def test_a_row_that_the_teacher_refuses_stands_among_the_others(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        body = {"k": 1, "requests": [written(1, 5), written(1, 5, presence_penalty=1.0), written(1, 6)]}
        rows = (await door.ask("/v1/generate", body)).json()["rows"]
        assert rows[1] == {"error": {"code": "not_answered", "reason": "this teacher does not support penalties"}}
        assert [row["token_ids"][:2] for row in (rows[0], rows[2])] == [[1, 5], [1, 6]]
        arrays = records(await door.ask("/v1/generate", body, Accept=MEDIA_TYPE))
        assert arrays[1].outcome == Failure("this teacher does not support penalties")

    at_door(tmp_path, play)


def test_texts_go_in_and_come_out(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        talk = [{"role": "user", "content": "Hi"}]
        body = {"k": 0, "requests": [{"prompt": "ab", "max_new_tokens": 3}, {"messages": talk, "max_new_tokens": 3}]}
        rows = (await door.ask("/v1/generate", body)).json()["rows"]
        assert all(isinstance(row["text"], str) for row in rows) and len(rows[0]["token_ids"]) == 6
        answer = {"role": "assistant", "content": "Ho"}
        body = {"k": 1, "requests": [{"prompt": "ab", "completion": "cd"}, {"messages": [*talk, answer]}]}
        rows = (await door.ask("/v1/score", body)).json()["rows"]
        assert [row["text"] for row in rows] == ["cd", "Ho"]

    at_door(tmp_path, play)


def test_a_teacher_is_named_where_there_are_several(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        unnamed = await door.ask("/v1/generate", ASKED)
        assert (unnamed.status_code, why(unnamed)["reason"]) == (422, "teacher: name one of noise, other")
        stranger = await door.ask("/v1/generate", ASKED | {"teacher": "nobody"})
        assert (stranger.status_code, why(stranger)["code"]) == (404, "unknown_teacher")
        assert (await door.ask("/v1/generate", ASKED | {"teacher": "other"})).json()["teacher"] == "other"

    at_door(tmp_path, play, names=["noise", "other"])


def test_it_is_told_who_is_behind_the_door(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        [teacher] = TeachersBody.model_validate_json((await door.told("/v1/teachers")).content).teachers
        assert (teacher.name, teacher.identity, teacher.verifiable) == ("noise", IDENTITY.digest(), True)
        assert teacher.fields["weights_sha256"] == "d" * 64 and teacher.fields["numerics_epoch"] == 1
        assert (teacher.vocab, teacher.most_k, teacher.max_model_len) == (VOCAB, 8, FACTS.max_model_len)
        assert (teacher.stop_ids, teacher.label, teacher.licence) == ([EOS], "Noise", "MIT")

    at_door(tmp_path, play, licence="MIT")


def test_what_a_scope_does_not_allow_is_refused(tmp_path: Path) -> None:
    gated = Gated(open_gate=True)

    async def play(door: OpenDoor) -> None:
        refused = await door.ask("/v1/generate", ASKED, scope="read")
        assert (refused.status_code, why(refused)["code"], gated.asked) == (403, "not_cached", [])
        assert (await door.ask("/v1/generate", ASKED, scope="ask")).status_code == 200
        assert (await door.ask("/v1/generate", ASKED, scope="read")).json()["rows"][0]["cached"]
        for scope in ("read", "ask", "admin"):
            assert (await door.told("/metrics", scope=scope)).status_code == 200  # type: ignore[arg-type]

    at_door(tmp_path, play, asking=gated)


def test_whoever_shows_no_valid_token_is_told_how(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        headers = door.headers("admin")
        assert (await door.client.get("/v1/teachers", headers=headers)).status_code == 200
        door.tokens.revoke("the-admin")
        for path in ("/v1/teachers", "/metrics", "/nowhere"):
            for given, code in (
                (None, "no_token"),
                ({"Authorization": "Bearer x"}, "invalid_token"),
                (headers, "invalid_token"),
            ):
                response = await door.client.get(path, headers=given)
                assert (response.status_code, why(response)["code"]) == (401, code)
                assert response.headers["www-authenticate"].startswith('Bearer realm="stillroom"')

    at_door(tmp_path, play)


def test_quotas_are_counted_by_key(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        # Six tokens at most each, and what is there costs none.
        assert (await door.ask("/v1/generate", ASKED)).status_code == 200
        assert (await door.ask("/v1/generate", ASKED)).status_code == 200
        over = await door.ask("/v1/generate", {"k": 0, "requests": [written(1, 9)]})
        assert (over.status_code, why(over)["code"]) == (429, "over_quota")
        assert 1 <= int(over.headers["retry-after"]) <= 60
        assert "the-ask has used the 15 tokens" in why(over)["reason"]
        late = await door.ask("/v1/generate", ASKED)
        assert (late.status_code, "4 requests" in late.text) == (429, False)
        assert (await door.ask("/v1/generate", ASKED, scope="read")).status_code == 200

    at_door(tmp_path, play, quotas=Quotas(requests_a_minute=3, tokens_a_minute=15))


def test_a_teacher_with_too_much_to_do_says_when_to_come_again(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        first = asyncio.create_task(door.ask("/v1/generate", ASKED))
        await gated.until_asked(2)
        busy = await door.ask("/v1/generate", {"k": 2, "requests": [written(1, 9)]})
        assert (busy.status_code, why(busy)["code"]) == (429, "busy") and int(busy.headers["retry-after"]) >= 1
        gated.gate.set()
        assert (await first).status_code == 200

    at_door(tmp_path, play, asking=gated, most_waiting_tokens=12)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("GET", "/v1/score", 405, "method_not_allowed"), ("POST", "/v1/score/", 404, "not_found")],
)  # fmt: skip
def test_what_is_not_there_is_said_in_the_same_shape(
    tmp_path: Path, method: str, path: str, status: int, code: str
) -> None:
    async def play(door: OpenDoor) -> None:
        response = await door.client.request(method, path, headers=door.headers())
        assert (response.status_code, why(response)["code"]) == (status, code)
        assert response.headers.get("allow") == ("POST" if status == 405 else None)

    at_door(tmp_path, play)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"k": ' + b"9" * 5000 + b', "requests": []}', 400),
        (b'{"k": 1, "requests": [{"token_ids": [1, 2], "prompt_len": true}]}', 422),
        (b'{"k": true, "requests": [{"token_ids": [1, 2], "prompt_len": 1}]}', 422),
        (b'{"k": 1, "requests": [{"token_ids": [1, NaN], "prompt_len": 1}]}', 422),
        (b'{"k": 1, "requests": [{"prompt": "a", "completion": "\\ud800"}]}', 422),
        (b'{"k": 1, "requests": [{"token_ids": [1, 200], "prompt_len": 1}]}', 422),
        (b'{"k": 9, "requests": [{"token_ids": [1, 2], "prompt_len": 1}]}', 422),
        (b'{"k": 1, "requests": [{"token_ids": [1, 2], "prompt_len": 1}], "more": 1}', 422),
        (b'{"k": 1, "requests": [{"token_ids": [1, 2], "prompt_len": 1}], "\\ud800": 1}', 422),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path, content: bytes, status: int) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        headers = door.headers("ask", **{"Content-Type": "application/json"})
        response = await door.client.post("/v1/score", content=content, headers=headers)
        assert (response.status_code, why(response)["status"]) == (status, status)

    at_door(tmp_path, play, asking=gated)
    assert not gated.asked


def test_a_door_that_is_closed_answers_who_is_inside_and_writes_it(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        inside = asyncio.create_task(door.ask("/v1/generate", ASKED))
        await gated.until_asked(2)
        draining = asyncio.create_task(door.app.state.door.drain())
        await asyncio.sleep(0.01)
        late = await door.ask("/v1/generate", ASKED)
        assert (late.status_code, why(late)["code"], late.headers["retry-after"]) == (503, "draining", "10")
        unready = await door.client.get("/readyz")
        assert (unready.status_code, why(unready)["code"]) == (503, "draining")
        assert (await door.client.get("/healthz")).status_code == 200
        assert not draining.done()
        gated.gate.set()
        assert (await inside).status_code == 200
        await draining
        assert door.desk.counts.committed_rows == 2

    at_door(tmp_path, play, asking=gated)


def test_it_is_ready_while_engines_answer_and_the_disk_takes_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = [None, "no engine of noise answers"]

    async def play(door: OpenDoor) -> None:
        assert (await door.client.get("/healthz")).json() == {"state": "alive"}
        assert (await door.client.get("/readyz")).json() == {"state": "ready"}
        reasons.reverse()
        unready = await door.client.get("/readyz")
        assert why(unready)["reason"] == "no engine of noise answers" and why(unready)["code"] == "not_ready"
        reasons.reverse()
        await door.ask("/v1/generate", ASKED)

        def full(*_: object, **__: object) -> None:
            raise CacheError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr(TeacherCache, "writer", full)
            await door.desk.commit()
        assert why(await door.client.get("/readyz"))["reason"] == "what was answered cannot be written"
        await door.desk.commit()
        assert (await door.client.get("/readyz")).status_code == 200

    at_door(tmp_path, play, why_not_ready=lambda: reasons[0])


def test_the_metrics_tell_of_rows_and_requests(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        for _ in range(2):
            await door.ask("/v1/generate", ASKED)
        response = await door.told("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=1.0.0")
        for sample in (
            'stillroom_rows_total{result="hit",teacher="noise"} 2.0',
            'stillroom_rows_total{result="asked",teacher="noise"} 2.0',
            'stillroom_requests_total{key="the-ask",route="/v1/generate",status="200"} 2.0',
            'stillroom_request_seconds_count{route="/v1/generate"} 2.0',
        ):
            assert sample in response.text.splitlines()

    at_door(tmp_path, play)


def test_the_logs_tell_of_a_request_and_nothing_of_what_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(door: OpenDoor) -> None:
        row = {"prompt": "verbatim", "max_new_tokens": 3}
        answers = [await door.ask("/v1/generate?x=verbatim", {"k": 0, "requests": [row]}) for _ in range(2)]
        bad = await door.ask("/v1/generate", {"k": "verbatim", "requests": [row | {"temperature": "verbatim"}]})
        assert bad.status_code == 422
        lost = await door.client.get("/verbatim", headers=door.headers(**{"X-Request-Id": "verbatim words"}))
        assert lost.status_code == 404
        await door.client.get("/v1/teachers", headers={"Authorization": "Bearer verbatim"})
        door.made["text"] = answers[0].json()["rows"][0]["text"]

    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").setLevel(logging.WARNING)
        door = at_door(tmp_path, play)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS_LOG]
    assert [(line["status"], line["route"], line["key"]) for line in lines] == [
        (200, "/v1/generate", "the-ask"),
        (200, "/v1/generate", "the-ask"),
        (422, "/v1/generate", "the-ask"),
        (404, "", "the-ask"),
        (401, "", ""),
    ]
    assert [(line["rows"], line["hits"], line["teacher_tokens"] > 0) for line in lines[:2]] == [
        (1, 0, True),
        (1, 1, False),
    ]
    everything = "\n".join(record.getMessage() for record in caplog.records)
    text, token = door.made.pop("text"), door.made["ask"]
    assert "verbatim" not in everything and token not in everything
    assert not text or text not in everything


def test_its_description_tells_of_errors_tokens_and_both_forms(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        described = (await door.client.get("/openapi.json")).json()
        routes = described["paths"]
        own = {"/v1/score", "/v1/generate", "/v1/signals", "/v1/teachers", "/metrics", "/healthz", "/readyz"}
        openai = OPENAI | {"/v1/models/{model}"}
        assert set(routes) == own | openai
        for path, operations in routes.items():
            for operation in operations.values():
                errors = {int(status) for status in operation["responses"] if status >= "4"}
                assert errors >= {400, 405, 408, 413, 421, 500, 503, 504}
                for status in errors:
                    schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
                    kind = "OpenAiErrorBody" if path in openai else "ErrorBody"
                    assert schema == {"$ref": f"#/components/schemas/{kind}"}
                assert ("security" in operation) == (path not in ("/healthz", "/readyz"))
                assert (MEDIA_TYPE in operation["responses"]["200"]["content"]) == (
                    path in ("/v1/score", "/v1/generate", "/v1/signals")
                )
        for page in ("/docs", "/redoc"):
            assert (await door.told(page)).status_code == 404

    at_door(tmp_path, play)


@pytest.mark.parametrize(
    ("phase", "met"),
    [
        ("fuzzing", {200, 400, 401, 422}),
        # At and beyond every bound, and by methods that there are not: hundreds of requests.
        pytest.param("coverage", {200, 401, 404, 405, 415, 422}, marks=pytest.mark.slow),
    ],
)
def test_it_is_what_its_description_says(tmp_path: Path, phase: str, met: set[int]) -> None:
    """Requests that are drawn from the schema, with and against it."""
    seers = {"seer": served_signals(tmp_path, Seeing())}
    door = make_door(tmp_path, Gated(open_gate=True), signals=seers)
    schema = schemathesis.openapi.from_asgi("/openapi.json", door.app)
    schema.config.update(headers=door.headers("ask"), continue_on_failure=True)
    schema.config.phases.update(phases=[phase])
    schema.config.generation.update(max_examples=20, deterministic=True, database="none")
    # A schema cannot know the names and the vocabularies of teachers: what it allows may be refused for what it asks.
    expected = ["2xx", "404", "413", "422"]
    schema.config.checks.positive_data_acceptance.expected_statuses = expected
    failures, statuses, asked = [], Counter[int](), set[str]()
    for event in from_schema(schema).execute():
        assert not isinstance(event, NonFatalError | FatalError), event
        if isinstance(event, ScenarioFinished):
            asked.add(event.recorder.label)
            statuses.update(each.response.status_code for each in event.recorder.interactions.values() if each.response)
            checks = [check for row in event.recorder.checks.values() for check in row]
            failures += [check.failure_info.failure for check in checks if check.failure_info is not None]
    assert failures == []
    assert set(statuses) >= met and 500 not in statuses
    assert asked >= {"POST /v1/score", "POST /v1/generate", "POST /v1/signals", "POST /v1/chat/completions"}
