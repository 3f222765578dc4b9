"""A real door under slow, greedy and dying clients, and with each of its processes killed: it serves, and says the truth.

One door for all of these tests, with short limits. Whatever it answered is held against a plain forward pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from conformance import greedy, present, records
from killed_drivers import wait_until
from raw_http import chunk, connected, head, refused, until_closed
from real_doors import RealDoor, real_door
from transformers import AutoModelForCausalLM

from cache.records import TeacherRecord
from teacher_server.http.client import DoorSettings, HttpTeacher

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"
QUOTA, CONNECTIONS, BODY = 120, 60, 1_000_000
LIMITS = {
    "headers_s": 2,
    "body_s": 2,
    "stalled_s": 2,
    "idle_s": 4,
    "most_connections": CONNECTIONS,
    "most_body_bytes": BODY,
    "requests_a_minute": QUOTA,
}
MARKER = "Quokkas-are-not-to-be-logged"
"""Stands in bodies, queries, headers and paths, and may stand in no log."""

ROUNDED_NATS = 1 / 16
"""What `topk-u8` makes of a log-probability at most: half a step of 1/16, and as much to have the row sum to one."""

LONG = 400
MUCH = 20 * 2**20
"""Bytes of an answer, more than the kernel and the process that listens hold between the door and a client."""

ENGINE, DOOR, LISTENER = "ServeReplica:stillroom:engine-teacher", "ServeReplica:stillroom:door", "ProxyActor"


@dataclass
class Opened:
    """An open door, its driver, the teacher's own model, and a token of whoever watches."""

    door: RealDoor
    driver: subprocess.Popen[str]
    watcher: str
    tokens: list[str] = field(default_factory=list)
    asked: int = 0

    def token(self, name: str, *, scope: str = "ask") -> str:
        self.tokens.append(self.door.token(name, scope=scope))
        return self.tokens[-1]

    def teacher(self, name: str) -> HttpTeacher:
        return HttpTeacher(DoorSettings(self.door.url, token=self.token(name), budget_s=600.0))

    def prompts(self, count: int) -> list[tuple[int, ...]]:
        """New ones each time."""
        self.asked += count
        return [(72, 105, 32, *(48 + int(digit) for digit in str(at))) for at in range(self.asked - count, self.asked)]

    def metric(self, name: str) -> float:
        """The sum over its labels; 0 where the door is away."""
        try:
            page = httpx.get(
                f"{self.door.url}/metrics", headers={"Authorization": f"Bearer {self.watcher}"}, timeout=60
            )
        except httpx.TransportError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in page.text.splitlines() if line.startswith(name))

    def until(self, moment: Callable[[], bool]) -> None:
        wait_until(moment, self.driver)

    def until_it_works(self) -> None:
        """Until it says that it can be asked."""

        def works() -> bool:
            try:
                return httpx.get(f"{self.door.url}/readyz", timeout=60).status_code == 200
            except httpx.TransportError:
                return False

        self.until(works)

    def process(self, named: str) -> psutil.Process:
        (found,) = self.door.place.processes(named=named)
        return found

    def connections(self) -> int:
        """How many the listening process holds."""
        held = self.process(LISTENER).net_connections("tcp")
        return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.door.port for each in held)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    changes = ["teacher.model.random.vocab=261", *(f"runtime.serve.{key}={value}" for key, value in LIMITS.items())]
    door = real_door(tmp_path_factory.mktemp("door"), TINY, *changes)
    try:
        driver = door.open()
        yield Opened(door, driver, door.token("watcher", scope="admin"))
    finally:
        door.place.clear()


def require_true(opened: Opened, said: Sequence[TeacherRecord]) -> None:
    """Hold what the door said against a plain forward pass: each token the likeliest, each log-probability right."""
    (shape,) = {path.parent for path in (opened.door.place.root / "models").rglob("config.json")}
    model = AutoModelForCausalLM.from_pretrained(shape, dtype=torch.float32).eval()
    for record in said:
        with torch.no_grad():
            logits = model(torch.tensor(record.token_ids[None].tolist())).logits[0, record.prompt_len - 1 : -1]
        rows = torch.log_softmax(logits.double(), dim=-1).numpy()
        own = rows[np.arange(len(rows)), record.response_ids]
        assert (own >= rows.max(axis=1) - 1e-3).all()
        np.testing.assert_allclose(present(record.target_logprobs), own, atol=ROUNDED_NATS)
        best = np.take_along_axis(rows, present(record.topk_ids).astype(np.int64), axis=1)
        np.testing.assert_allclose(present(record.topk_logprobs), best, atol=ROUNDED_NATS)


def long_answers(opened: Opened, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """A body that keeps the engine busy for a while."""
    rows = [{"prompt_ids": list(prompt), "max_new_tokens": LONG, "stop_ids": []} for prompt in prompts]
    return {"k": 8, "requests": rows}


def asked_meanwhile(opened: Opened, body: dict[str, Any], token: str) -> tuple[threading.Thread, list[httpx.Response]]:
    """A request that is under way when this returns, and where its answer will be unless its connection breaks."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with suppress(httpx.TransportError):
            answers.append(httpx.post(f"{opened.door.url}/v1/generate", json=body, headers=headers, timeout=600))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    opened.until(lambda: opened.metric("stillroom_waiting_tokens") > 0)
    return asking, answers


def test_slow_and_half_sent_requests_end_and_others_are_served_meanwhile(opened: Opened) -> None:
    port, token = opened.door.port, opened.token("slow")
    body = json.dumps({"k": 1, "requests": [{"prompt": MARKER}]}).encode()
    with connected(port) as silent, connected(port) as begun, connected(port) as dripping, connected(port) as half:
        begun.sendall(head("/v1/generate", token=token, length=9)[:-2] + b"X-Never-Finished: ")
        half.sendall(head("/v1/generate", token=token, length=len(body)) + body[:-1])
        dripping.sendall(head("/v1/generate", token=token))
        with opened.teacher("patient") as teacher:
            require_true(opened, records(teacher.generate([greedy(one) for one in opened.prompts(4)], k=8)))
        for byte in body:
            try:
                dripping.sendall(chunk(bytes([byte])))
                time.sleep(0.1)
            except OSError:
                break
        assert until_closed(silent) == b""
        told = [refused(until_closed(each)) for each in (begun, half, dripping)]
    assert [(each["status"], each["code"]) for each in told] == [
        (408, "headers_too_slow"),
        (408, "body_too_slow"),
        (408, "body_too_slow"),
    ]


def test_a_body_that_is_too_long_is_refused_whether_its_length_is_told_or_not(opened: Opened) -> None:
    token = opened.token("long")
    with connected(opened.door.port) as client:
        client.sendall(head("/v1/generate", token=token, length=BODY + 1))
        assert (refused(until_closed(client))["status"]) == 413
    with connected(opened.door.port) as client:
        try:
            client.sendall(head("/v1/generate", token=token))
            for _ in range(100):
                client.sendall(chunk(MARKER.encode() * 4000))
        except OSError:
            pass
        assert refused(until_closed(client))["code"] == "body_too_large"


def test_whoever_does_not_read_a_long_answer_is_cut_off(opened: Opened) -> None:
    token = opened.token("stalling")
    rows = [
        {"token_ids": [*prompt, *[97 + at % 7 for at in range(480)]], "prompt_len": 1} for prompt in opened.prompts(120)
    ]
    body = json.dumps({"k": 16, "requests": rows}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    whole = httpx.post(f"{opened.door.url}/v1/score", content=body, headers=headers, timeout=600)
    assert whole.status_code == 200 and len(whole.content) > MUCH
    with connected(opened.door.port) as client:
        client.sendall(head("/v1/score", token=token, length=len(body)) + body)
        opened.until(lambda: opened.connections() == 0)
        assert 0 < len(until_closed(client)) < len(whole.content)
    with httpx.stream("POST", f"{opened.door.url}/v1/score", content=body, headers=headers, timeout=600) as slowly:
        received = 0
        for piece in slowly.iter_raw(2**21):
            received += len(piece)
            time.sleep(0.3)
    assert received > MUCH


def test_bounds_that_are_opened_and_left_make_room_again(opened: Opened) -> None:
    opened.until(lambda: opened.connections() == 0)
    left = [connected(opened.door.port) for _ in range(CONNECTIONS)]
    try:
        opened.until(lambda: opened.connections() == CONNECTIONS)
        with connected(opened.door.port) as one_more:
            assert refused(until_closed(one_more))["code"] == "too_many_connections"
        with opened.teacher("after-the-crowd") as teacher:
            require_true(opened, records(teacher.generate([greedy(one) for one in opened.prompts(2)], k=8)))
        assert [until_closed(each) for each in left] == [b""] * CONNECTIONS
    finally:
        for each in left:
            each.close()


def test_a_key_that_floods_the_door_is_refused_and_another_is_served(opened: Opened) -> None:
    flooding, modest = opened.token("flooding"), opened.token("modest")
    prompts = opened.prompts(20)
    limits = httpx.Limits(max_connections=CONNECTIONS // 2)
    with httpx.Client(base_url=opened.door.url, timeout=600, limits=limits) as client, ThreadPoolExecutor(16) as pool:

        def ask(at: int, token: str) -> httpx.Response:
            rows = [{"prompt_ids": list(prompts[at % len(prompts)]), "max_new_tokens": 4}]
            headers = {"Authorization": f"Bearer {token}"}
            return client.post("/v1/generate", json={"k": 0, "requests": rows}, headers=headers)

        flood = [pool.submit(ask, at, flooding) for at in range(3 * QUOTA)]
        served = [ask(at, modest).status_code for at in range(20)]
        answers = [each.result() for each in flood]
    assert served == [200] * 20
    said = [answer.status_code for answer in answers]
    # What a slow machine takes longer than a minute for is let in again.
    assert QUOTA <= said.count(200) < 3 * QUOTA and set(said) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "over_quota" and int(answer.headers["retry-after"]) > 0


def test_what_a_killed_client_asked_is_there_for_the_next_one(opened: Opened) -> None:
    prompts, token = opened.prompts(8), opened.token("killed")
    body = json.dumps(long_answers(opened, prompts))
    script = (
        "import os, sys, httpx; httpx.post(sys.argv[1], content=sys.stdin.read(), timeout=600, headers={"
        "'Authorization': 'Bearer ' + os.environ['TOKEN'], 'Content-Type': 'application/json'})"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script, f"{opened.door.url}/v1/generate"],
        stdin=subprocess.PIPE,
        env=os.environ | {"TOKEN": token},
        text=True,
    )
    assert client.stdin is not None
    client.stdin.write(body)
    client.stdin.close()
    opened.until(lambda: opened.metric("stillroom_waiting_tokens") > 0)
    asked = opened.metric('stillroom_rows_total{result="asked"')

    # Somebody else waits for the same answers; whoever asked first goes away.
    answers: list[httpx.Response] = []
    url, headers = f"{opened.door.url}/v1/generate", {"Authorization": f"Bearer {opened.token('waiting')}"}
    waiting = threading.Thread(
        target=lambda: answers.append(httpx.post(url, json=json.loads(body), headers=headers, timeout=600)), daemon=True
    )
    waiting.start()
    opened.until(lambda: opened.metric('stillroom_rows_total{result="shared"') >= len(prompts))
    client.kill()
    assert client.wait() == -signal.SIGKILL
    waiting.join(600)
    assert [(answer.status_code, len(answer.json()["rows"])) for answer in answers] == [(200, 8)]
    assert opened.metric('stillroom_rows_total{result="asked"') == asked
    with opened.teacher("next") as teacher:
        require_true(opened, records(teacher.generate([greedy(prompt, new=LONG) for prompt in prompts], k=8)))
    assert opened.metric('stillroom_rows_total{result="asked"') == asked


def test_an_engine_that_is_killed_in_the_middle_of_a_request_costs_time_alone(opened: Opened) -> None:
    prompts, token = opened.prompts(8), opened.token("patient-with-engines")
    asking, answers = asked_meanwhile(opened, long_answers(opened, prompts), token)
    opened.process(ENGINE).kill()
    asking.join(600)
    assert [answer.status_code for answer in answers] == [200]
    with opened.teacher("reading") as teacher:
        said = records(teacher.generate([greedy(prompt, new=LONG) for prompt in prompts], k=8))
    assert [record.response_ids.tolist() for record in said] == [
        row["token_ids"][row["prompt_len"] :] for row in answers[0].json()["rows"]
    ]
    require_true(opened, said)


@pytest.mark.parametrize(("named", "killed"), [("door", DOOR), ("listener", LISTENER)])
def test_a_door_whose_process_is_killed_in_the_middle_of_a_request_is_there_again(
    opened: Opened, named: str, killed: str
) -> None:
    before, prompts = opened.prompts(4), opened.prompts(8)
    with opened.teacher(f"before-{named}") as teacher:
        first = records(teacher.generate([greedy(prompt) for prompt in before], k=8))
    opened.until(lambda: opened.metric("stillroom_committed_rows_total") > 0)
    time.sleep(2)  # several times `commit_every_s`
    asking, answers = asked_meanwhile(opened, long_answers(opened, prompts), opened.token(f"unlucky-{named}"))
    opened.process(killed).kill()
    asking.join(600)
    # Whoever listens may be able to say it.
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "door_away")
        assert int(answer.headers["retry-after"]) > 0
    assert len(answers) == (killed == DOOR)
    opened.until_it_works()
    asked = opened.metric('stillroom_rows_total{result="asked"')

    with opened.teacher(f"after-{named}") as teacher:
        late = records(teacher.generate([greedy(prompt, new=LONG) for prompt in prompts], k=8))
        again = records(teacher.generate([greedy(prompt) for prompt in before], k=8))
    assert [one.token_ids.tolist() for one in again] == [one.token_ids.tolist() for one in first]
    require_true(opened, [*again, *late])
    if killed == LISTENER:
        # The door itself went on with what it was asked.
        assert opened.metric('stillroom_rows_total{result="asked"') == asked
    cache = opened.door.place.cache()
    assert cache is not None and None not in cache.lookup([greedy(prompt) for prompt in before], k=8)


def test_nothing_that_was_said_and_no_token_is_in_any_log(opened: Opened) -> None:
    token = opened.token("talkative")
    headers = {"Authorization": f"Bearer {token}", "X-Said": MARKER}
    with httpx.Client(base_url=opened.door.url, headers=headers, timeout=600) as client:
        client.get(f"/{MARKER}?said={MARKER}")
        client.get(f"/v1/teachers?said={MARKER}")
        client.post("/v1/generate", content=MARKER.encode(), headers={"Content-Type": "application/json"})
        client.post("/v1/generate", json={"k": 0, "requests": [{"prompt": MARKER}], MARKER: 1})
        client.post("/v1/chat/completions", json={"model": MARKER, "messages": [{"role": MARKER, "content": MARKER}]})
        said = client.post("/v1/generate", json={"k": 0, "requests": [{"prompt": f"{MARKER}!", "max_new_tokens": 4}]})
        assert said.status_code == 200
    # What Ray and Serve write lies in their own directory, which goes when the door is closed.
    parts = [part for process in opened.door.place.processes() for part in process.cmdline()]
    (session,) = {part.partition("=")[2] for part in parts if part.startswith(("--session_dir=", "--session-dir="))}
    logs = [path for path in Path(session).rglob("*") if path.is_file() and path.suffix in (".log", ".out", ".err")]
    assert any("proxy" in path.name for path in logs)
    written = opened.door.written() + "".join(path.read_text(errors="replace") for path in logs)
    ids = json.dumps(list(MARKER.encode()))[1:-1]
    for secret in (MARKER, ids, opened.watcher, *opened.tokens):
        assert secret not in written


def test_what_was_answered_is_in_the_cache_when_it_is_closed(opened: Opened) -> None:
    prompts = opened.prompts(3)
    with opened.teacher("last") as teacher:
        records(teacher.generate([greedy(prompt) for prompt in prompts], k=8))
    opened.driver.send_signal(signal.SIGTERM)
    printed = opened.driver.communicate(timeout=300)[0]
    assert opened.driver.returncode == 0 and "The door is closed." in printed, printed
    opened.door.place.wait_until_gone()
    cache = opened.door.place.cache()
    assert cache is not None and None not in cache.lookup([greedy(prompt) for prompt in prompts], k=8)
