"""The door before an engine of known speed: rows of the cache, load from another process, memory over many requests.

The engine finishes up to `BATCH` requests every `STEP_S`, whoever asks, and computes nothing: what is slower than it is
the door's doing. The door runs in a process of its own, without Ray Serve before it; who asks is this process.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import uvicorn

from benchmarks.measurement import Measurement, at_least, at_most
from cache import TeacherCache, TeacherIdentity, TeacherRecord
from cache.keys import sequence_key
from cache.protocols import Outcome
from cache.records import GenerateRequest
from teacher_server import FakeTeacher
from teacher_server.http.app import build_app
from teacher_server.http.client import HttpTeacher
from teacher_server.http.connection import DoorSettings
from teacher_server.http.guard import Guard, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served, TeacherFacts
from teacher_server.http.stepping import SteppedEngine
from teacher_server.http.wire import MEDIA_TYPE
from teacher_server.requests import Asked

VOCAB, K, NEW = 512, 64, 16
BATCH, STEP_S = 16, 0.1
CLIENTS = 32
SECONDS = 8.0
"""How long each load lasts."""

ROWS, ROUNDS = 1024, 3
REQUESTS = 10_000

IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)
Ask = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Load:
    """Rows a second, and seconds of one: the median, and what one of a hundred takes longer than."""

    rate: float
    median: float
    last: float

    @classmethod
    def of(cls, took: Sequence[float], *, seconds: float) -> Load:
        """That of requests that took so long each."""
        median, last = np.percentile(took, [50, 99])
        return cls(len(took) / seconds, float(median), float(last))

    def rows(self, name: str, *, beside: Load) -> Iterator[Measurement]:
        """Rate and latencies, with those of the engine alone."""
        figures = (("rate", "rows/s", 1.0), ("median", "ms", 1e3), ("last", "ms", 1e3))
        words = {"rate": "rate", "median": "a row, p50", "last": "a row, p99"}
        for field, unit, scale in figures:
            ours, theirs = (scale * getattr(load, field) for load in (self, beside))
            yield Measurement(f"{name}, {words[field]}", ours, unit, digits=0, peers={"the bare engine": theirs})


def bench_door() -> Iterator[Measurement]:
    """Lines about rows that are there, about load, and about memory."""
    bare = _bare()
    with tempfile.TemporaryDirectory() as root, _opened(Path(root)) as (url, token, door):
        yield _hits(url, token)
        headers = {"Authorization": f"Bearer {token}", "Accept": MEDIA_TYPE}
        limits = httpx.Limits(max_connections=None)
        with httpx.Client(base_url=url, headers=headers, timeout=60.0, limits=limits) as client:

            def ask(at: int) -> None:
                rows = [{"prompt_ids": request_of(at).prompt_ids, "max_new_tokens": NEW}]
                client.post("/v1/generate", json={"k": K, "requests": rows}).raise_for_status()

            closed = _closed(ask, first=ROWS)
            yield from closed.rows(f"door, {CLIENTS} who wait", beside=bare)
            yield at_least("door, throughput over the bare engine's", closed.rate / bare.rate, 0.9)
            rate = 0.7 * bare.rate
            yield from _open(ask, first=10**6, rate=rate).rows(f"door, {rate:.0f} rows/s come", beside=bare)
            before = door.memory_info().rss
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda at: ask(at % ROWS), range(REQUESTS)))
            grown = (door.memory_info().rss - before) / 2**20
            yield at_most(f"door, memory over {REQUESTS:,} requests", grown, 64.0, digits=0, unit="MiB")


def _hits(url: str, token: str) -> Measurement:
    with HttpTeacher(DoorSettings(url, token=token)) as teacher:
        seconds = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            answers = list(teacher.generate(map(request_of, range(ROWS)), k=K))
            seconds.append(time.perf_counter() - started)
            assert len(answers) == ROWS and all(isinstance(each, TeacherRecord) for _, each in answers)
    # The first time the engine was asked.
    rate = ROWS / min(seconds[1:])
    return at_least(f"door, rows of {NEW} tokens from the cache, k={K}", rate, 2000.0, digits=0, unit="rows/s")


def _bare() -> Load:
    """The engine alone under the same load."""
    engine = SteppedEngine(Paced())
    try:
        return _closed(lambda at: engine.submit(request_of(at), k=K).result(), first=0)
    finally:
        engine.close()


def _closed(ask: Ask, *, first: int) -> Load:
    """`CLIENTS` who each ask again as soon as they are answered."""
    numbers, ended = itertools.count(first), time.monotonic() + SECONDS

    def work() -> list[float]:
        took = []
        while (started := time.monotonic()) < ended:
            ask(next(numbers))
            took.append(time.monotonic() - started)
        return took

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [pool.submit(work) for _ in range(CLIENTS)]
        return Load.of([each for one in done for each in one.result()], seconds=SECONDS)


def _open(ask: Ask, *, first: int, rate: float) -> Load:
    """Requests that come at a rate, whoever is answered; seconds count from when each was due."""
    began = time.monotonic()

    def work(at: int) -> float:
        time.sleep(max(0.0, began + at / rate - time.monotonic()))
        ask(first + at)
        return time.monotonic() - began - at / rate

    with ThreadPoolExecutor(8 * CLIENTS) as pool:
        took = list(pool.map(work, range(int(rate * SECONDS))))
    return Load.of(took, seconds=time.monotonic() - began)


def request_of(at: int) -> GenerateRequest:
    """One of many that differ."""
    return GenerateRequest((1, *(10 + at // 500**place % 500 for place in range(3))), (2,), NEW)


class Paced:
    """Answers what has come, `BATCH` requests a step, each of which takes `STEP_S`; it says always the same."""

    def __init__(self) -> None:
        teacher = FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=2, max_model_len=64)
        [(_, record)] = teacher.generate([GenerateRequest((1, 5), (), NEW)], k=K)
        assert isinstance(record, TeacherRecord)
        self._record = record

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `StepwiseSource.work`."""
        waiting: list[tuple[int, Asked]] = []
        places = itertools.count()
        for each in asked:
            if each is not None:
                waiting.append((next(places), each))
            if each is None or len(waiting) >= BATCH:
                time.sleep(STEP_S)
                yield [(at, self._answer(one)) for at, one in waiting[:BATCH]]
                del waiting[:BATCH]

    def _answer(self, asked: Asked) -> TeacherRecord:
        assert isinstance(asked.request, GenerateRequest)
        prompt = asked.request.prompt_ids
        ids = np.array([*prompt, *self._record.response_ids], dtype=np.int32)
        key = sequence_key(IDENTITY.digest(), ids, len(prompt))
        return replace(self._record, key=key, token_ids=ids, prompt_len=len(prompt))


@contextmanager
def _opened(root: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """A door in a process of its own: its address, a token, and the process."""
    token = TokenStore(root / "tokens.json").new("bench", scopes=["ask"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(root, listener), daemon=True)
        process.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            # It is accepted before the door looks.
            httpx.get(f"{url}/healthz", timeout=120.0)
            yield url, token, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.join()


def _serve(root: Path, listener: socket.socket) -> None:
    terms = DeskTerms(vocab=VOCAB, most_k=K, commit_every_s=1.0)
    desk = SequenceDesk(TeacherCache.open(root / "cache", IDENTITY), SteppedEngine(Paced()), terms)
    app = build_app(
        {"paced": Served(desk, TeacherFacts(IDENTITY, max_model_len=64, stop_ids=(2,), label="Paced"))},
        guard=Guard(TokenStore(root / "tokens.json"), hosts=["127.0.0.1"]),
        quotas=Quotas(),
        limits=DoorLimits(),
        why_not_ready=lambda: None,
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=60))
    asyncio.run(server.serve(sockets=[listener]))
