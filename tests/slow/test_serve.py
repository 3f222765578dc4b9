"""The door with all that is real: Ray Serve, a vLLM engine, tokens, clients over HTTP, and processes that are killed."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conformance import greedy, records
from killed_drivers import wait_until
from real_doors import RealDoor, real_door

from cache.records import ScoreRequest, TeacherRecord
from teacher_server.http.client import HttpTeacher
from teacher_server.http.connection import DoorSettings

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs/tiny.yaml"
ASKED = 'stillroom_rows_total{result="asked",teacher="teacher"} 8.0'
"""What the metrics say once the teacher was asked for all of them."""

PROMPTS = [(72, 101, 108, 108, 111, 32, 48 + at) for at in range(8)]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[RealDoor]:
    made = real_door(tmp_path, TINY)
    yield made
    made.place.clear()


def ask_as_openai(door: RealDoor, token: str, written: TeacherRecord) -> None:
    """What was written to a client of ours is there for one of OpenAI's, whole and through the proxy's stream."""
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key=token)
    prompt = written.token_ids[: written.prompt_len].tolist()
    asked: dict[str, Any] = {
        "model": "teacher", "prompt": prompt, "temperature": 0, "max_tokens": written.response_len, "logprobs": 1,
        "extra_body": {"return_token_ids": True, "ignore_eos": True},
    }  # fmt: skip
    [choice] = client.completions.create(**asked).choices
    assert choice.token_ids == written.response_ids.tolist()  # type: ignore[attr-defined]
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    assert written.target_logprobs is not None
    # By now it may be read from the cache, which keeps these numbers as they are.
    assert choice.logprobs.token_logprobs == written.target_logprobs.tolist()
    parts = [part for chunk in client.completions.create(stream=True, **asked) for part in chunk.choices]
    assert "".join(part.text for part in parts) == choice.text and parts[-1].finish_reason == choice.finish_reason

    # What the engine scores, for whoever reads likelihoods out of an echo.
    answer = client.completions.create(model="teacher", prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    told = answer.choices[0].logprobs
    with HttpTeacher(DoorSettings(door.url, token=token, budget_s=600.0)) as teacher:
        [scored] = records(teacher.score([ScoreRequest(tuple(prompt), 1)], k=1))
    assert told is not None and scored.target_logprobs is not None
    assert told.token_logprobs == [None, *scored.target_logprobs.tolist()]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])


def test_a_door_outlives_its_engine_and_answers_to_the_end(door: RealDoor) -> None:
    process, token = door.open(), door.token("team")
    with HttpTeacher(DoorSettings(door.url, token=token, budget_s=600.0)) as teacher:
        first = records(teacher.generate([greedy(prompt) for prompt in PROMPTS], k=8))
        again = records(teacher.generate([greedy(prompt) for prompt in PROMPTS], k=8))
        assert [one.key for one in first] == [one.key for one in again]
        metrics = httpx.get(f"{door.url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
        assert 'result="hit"' in metrics and 'result="asked"' in metrics

        ask_as_openai(door, token, first[0])

        # An engine that is killed is replaced, and whoever asks meanwhile is answered by its successor.
        (engine,) = door.place.processes(named="ServeReplica:stillroom:engine-teacher")
        engine.kill()
        [late] = records(teacher.generate([greedy((72, 105, 33))], k=8))
        assert late.k == 8

    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "The door is closed." in printed, printed
    door.place.wait_until_gone()
    cache = door.place.cache()
    assert cache is not None
    assert None not in cache.lookup([greedy(prompt) for prompt in (*PROMPTS, (72, 105, 33))], k=8)
    # Nothing of what was asked or said, and no token, stands in a log; who asked does.
    written = door.written()
    assert token not in written and str(list(PROMPTS[0]))[1:-1] not in written
    lines = [json.loads(line) for line in (door.place.root / "runs/door-logs/access.jsonl").read_text().splitlines()]
    assert any(line["key"] == "team" and line["route"] == "/v1/generate" for line in lines)


def test_a_door_that_is_drained_answers_who_is_inside_and_lets_nobody_in(door: RealDoor) -> None:
    process, token = door.open(), door.token("team")
    headers = {"Authorization": f"Bearer {token}"}
    rows = [{"prompt_ids": list(prompt), "max_new_tokens": 400} for prompt in PROMPTS]
    with httpx.Client(base_url=door.url, headers=headers, timeout=300.0) as client:
        assert client.get("/v1/teachers").status_code == 200
        answers: list[httpx.Response] = []
        body = {"k": 8, "requests": rows}
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/generate", json=body)))
        asking.start()
        wait_until(lambda: ASKED in client.get("/metrics").text, process)
        process.send_signal(signal.SIGTERM)
        asking.join(300)
    assert answers and answers[0].status_code == 200 and len(answers[0].json()["rows"]) == len(rows)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{door.url}/healthz")
