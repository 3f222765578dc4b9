"""A pool of engines: how they start, what each is asked, and what becomes of one that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from local_engines import IDENTITY
from pool_builders import Surroundings, surround
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from cache import TeacherRecord
from cache.keys import sequence_key
from configs import EngineError
from configs.schema import EngineSettings
from orchestration.cluster import actor_pool, engine_pool, leases
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec, TimedAnswers
from orchestration.cluster.pulse import LOOK_EVERY_S
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.work import EnginesDiedError, MemoryRanOutError
from teacher_server.reference import ReferenceRows
from teacher_server.startup_check import CheckAnswers

SEQUENCES = ((3, 4, 5, 6), (3, 4, 7))
SPEC = EngineSpec(
    Path("/model"), IDENTITY, vocab=64, dtype="float32", quantization=None,
    settings=EngineSettings(count=2, cpus=3, max_sequences=8), max_logprobs=4, accelerator="cpu",
    log_dir=Path("/logs"),
)  # fmt: skip
OTHER = replace(IDENTITY, weights_sha256="d" * 64)


class Actor:
    """An engine's actor that writes down what it is asked, and answers with its own index."""

    def __init__(self, index: int, calls: list[tuple[Any, ...]]) -> None:
        self._index, self._calls = index, calls

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any, **named: Any) -> Any:
            self._calls.append((self._index, name, *arguments, *named.values()))
            return self._index

        return SimpleNamespace(remote=remote)


class Ray:
    """Answers at once, or after as many looks as are `slow`.

    `lost` is raised at the next `get`; `queue` is the progress of a fill, poll after poll.
    """

    def __init__(self) -> None:
        self.around = Surroundings()
        self.slow = 0
        self.calls: list[tuple[Any, ...]] = []
        self.options: list[dict[str, Any]] = []
        self.killed = 0
        self.lost: RayError | None = None
        self.queue = [FillProgress()]
        self.stopped = 0
        self.settings: list[EngineSettings] = []
        self.waited: list[Any] = []
        self.joules: list[float] = []

    def start(self, **chosen: Any) -> Any:
        self.options.append(chosen)

        def remote(spec: EngineSpec, *, index: int, life: Any) -> Actor:
            assert life.name == str(index)
            self.calls.append((index, "start", spec.model_dir))
            self.settings.append(spec.settings)
            return Actor(index, self.calls)

        return SimpleNamespace(remote=remote)

    def lease(self, work: list[Any], *, token_budget: int | None, engines: int) -> Any:
        self.calls.append(("queue", len(work), token_budget, engines))

        def progress() -> FillProgress:
            return self.queue.pop(0) if len(self.queue) > 1 else self.queue[0]

        def stop() -> None:
            self.stopped += 1

        def add(items: list[Any]) -> tuple[int, bool]:
            # Engines take at once whatever comes.
            self.calls.append(("added", len(items)))
            return 0, bool(items)

        methods = {
            "add": add, "progress": progress, "stop": stop, "measured": self.joules.append, "handed_out": lambda: [0, 2],
        }  # fmt: skip
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})

    def get(self, references: Any, **_: Any) -> Any:
        if self.lost is not None and references != []:
            error, self.lost = self.lost, None
            raise error
        return references

    def wait(self, references: list[Any], *, timeout: float, **_: Any) -> tuple[list[Any], list[Any]]:
        self.waited = references
        if timeout == LOOK_EVERY_S:
            # Whoever is asked something else than a fill.
            self.slow -= 1
            return (references, []) if self.slow < 0 else ([], references)
        return (references, []) if len(self.queue) == 1 else ([], references)

    def kill(self, actor: Actor) -> None:
        self.killed += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    fake.around = surround(monkeypatch)
    monkeypatch.setattr(actor_pool, "ray", fake)
    monkeypatch.setattr(engine_pool, "EngineActor", SimpleNamespace(options=fake.start))
    monkeypatch.setattr(
        actor_pool, "LeaseQueue", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=fake.lease))
    )
    return fake


@pytest.mark.parametrize(
    ("changes", "cpus", "gpus"),
    [
        ({}, 3, 0),
        # Beside a worker group that holds all CPUs in Ray's books.
        ({"purpose": "rollout"}, 0, 0),
        ({"accelerator": "gpu", "settings": EngineSettings(count=2, tensor_parallel=4)}, 4, 4),
        ({"accelerator": "gpu", "settings": EngineSettings(count=2, tensor_parallel=2, pipeline_parallel=3)}, 6, 6),
        ({"settings": EngineSettings(count=2, pipeline_parallel=2, cpus=3)}, 6, 0),
        ({"accelerator": "gpu", "purpose": "shared rollout", "gpu_share": 0.25}, 0, 0.25),
    ],
)
def test_each_engine_reserves_what_it_needs(changes: dict[str, Any], cpus: int, gpus: float, cluster: Ray) -> None:
    EnginePool(replace(SPEC, **changes)).start()
    assert [(each["num_cpus"], each["num_gpus"]) for each in cluster.options] == [(cpus, gpus)] * 2
    assert [call for call in cluster.calls if call[1] == "ready"] == [(0, "ready"), (1, "ready")]


def test_engines_start_once_and_their_time_is_counted_until_they_end(cluster: Ray) -> None:
    counted: list[Any] = []

    def engines_up(gpus: float, *, whose: str) -> Any:
        assert whose == "teacher"
        counted.append(gpus)
        return lambda: counted.append("down")

    clock: Any = SimpleNamespace(engines_up=engines_up)
    pool = EnginePool(
        replace(SPEC, settings=EngineSettings(count=2, tensor_parallel=4), accelerator="gpu", teaches=True),
        clock=clock,
    )
    pool.start()
    pool.start()
    assert counted == [8] and len(cluster.options) == 2
    pool.release()
    pool.release()
    assert counted == [8, "down"] and cluster.killed == 2
    assert cluster.calls[-2:] == [(0, "close"), (1, "close")]


def test_engines_take_their_places_in_a_room_that_they_leave_when_they_are_up(cluster: Ray) -> None:
    noted: list[tuple[str, int]] = []

    @contextmanager
    def room() -> Iterator[None]:
        noted.append(("in", len(cluster.options)))
        yield
        noted.append(("out", len([call for call in cluster.calls if call[1] == "ready"])))

    pool = EnginePool(SPEC, room=room)
    pool.start()
    pool.start()
    assert noted == [("in", 0), ("out", 2)]


def test_engines_take_the_weights_of_another_model_once(cluster: Ray) -> None:
    pool = EnginePool(SPEC)
    pool.load(Path("/other"), OTHER)
    assert (0, "start", Path("/other")) in cluster.calls
    cluster.calls.clear()
    pool.load(Path("/other"), OTHER)
    assert cluster.calls == []
    pool.load(Path("/model"), IDENTITY)
    assert cluster.calls == [(index, "load", Path("/model"), IDENTITY) for index in (0, 1)]


def test_every_process_of_every_engine_meets_the_sender_under_a_rank_of_its_own(cluster: Ray) -> None:
    pool = EnginePool(replace(SPEC, settings=EngineSettings(count=2, tensor_parallel=4), accelerator="gpu"))
    pool.receive(Path("/meeting"), (), OTHER)
    found = [(call[2].first, call[2].size) for call in cluster.calls if call[1] == "receive"]
    # The sender is rank 0; a group's first process gets the first of its ranks.
    assert found == [(1, 9), (5, 9)]


def test_engines_that_share_gpus_sleep_once_and_wake_when_used(cluster: Ray) -> None:
    pool = EnginePool(replace(SPEC, purpose="shared rollout"))
    pool.sleep()
    assert cluster.calls == []
    pool.start()
    cluster.calls.clear()
    pool.sleep()
    pool.sleep()
    pool.start()
    pool.start()
    assert cluster.calls == [(0, "sleep"), (1, "sleep"), (0, "wake"), (1, "wake")]
    alone = EnginePool(SPEC)
    alone.start()
    cluster.calls.clear()
    alone.sleep()
    assert cluster.calls == []


def test_what_a_rollout_may_expect_of_a_pool() -> None:
    pool = EnginePool(SPEC)
    assert (pool.block_tokens, pool.capacity, pool.shares_processor, pool.processes) == (1, 16, True, 2)
    gpus = EnginePool(
        replace(SPEC, accelerator="gpu", settings=EngineSettings(count=2, tensor_parallel=4, max_sequences=8))
    )
    assert (gpus.block_tokens, gpus.capacity, gpus.shares_processor, gpus.processes) == (16, 16, False, 8)


ORDER = FillOrder(False, Path("/cache"), 4, 30.0, None, {}, Path("/ledger"))


def fill(pool: EnginePool, *, seconds_budget: float | None = None) -> tuple[FillProgress, list[Any]]:
    """What a fill of three requests says, and what it shows while it runs."""
    shown: list[Any] = []
    progress: Any = SimpleNamespace(update=lambda done, *, tokens: shown.append((done, tokens)))
    work: list[Any] = [(number, None) for number in range(3)]
    return pool.fill(work, ORDER, progress=progress, token_budget=99, seconds_budget=seconds_budget), shown


def test_a_fill_shows_rows_and_failures_until_all_engines_are_done(cluster: Ray) -> None:
    cluster.queue = [
        FillProgress(rows=1, response_tokens=5),
        FillProgress(rows=2, response_tokens=9, failures=[(2, "too long")]),
    ]
    total, shown = fill(EnginePool(SPEC))
    assert shown == [(1, 5), (3, 9)]
    assert (total.rows, total.failures) == (2, [(2, "too long")])
    assert ("queue", 3, 99, 2) in cluster.calls
    assert [call[1] for call in cluster.calls if call[1] == "fill"] == ["fill", "fill"]
    assert cluster.killed == 0


def test_more_is_drawn_while_a_fill_goes_on_and_who_had_ended_begins_again(
    cluster: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (actor_pool, leases):
        monkeypatch.setattr(module, "DRAWN_AT_ONCE", 2)
    monkeypatch.setattr(leases, "ray", cluster)
    cluster.queue = [FillProgress(rows=3)]
    fill(EnginePool(SPEC))
    queued = [call[1:] for call in cluster.calls if call[0] in ("queue", "added")]
    assert queued == [(2, 99, 2), (0,), (1,), (0,), (0,)]
    assert [call[0] for call in cluster.calls if call[1] == "fill"] == [0, 1, 0, 1]


def test_the_energy_of_a_fill_is_told_to_its_engines(cluster: Ray) -> None:
    cluster.queue = [FillProgress(rows=1), FillProgress(rows=2)]
    readings = iter([100.0, 130.0, 175.0])
    fill(EnginePool(SPEC, joules=lambda: next(readings)))
    assert cluster.joules == [30.0, 75.0]


def test_a_fill_ends_when_its_time_is_up(cluster: Ray) -> None:
    cluster.queue = [FillProgress(rows=1), FillProgress(rows=2), FillProgress(rows=3)]
    total, shown = fill(EnginePool(SPEC), seconds_budget=-1.0)
    assert len(shown) == 1 and cluster.stopped == 1
    assert total.rows == 2


def test_an_engine_that_dies_in_a_fill_ends_the_pool_and_stops_the_others(cluster: Ray) -> None:
    pool = EnginePool(SPEC)
    pool.start()
    died = ActorDiedError()
    died.error_msg = "The actor died unexpectedly: connection error code 2"
    cluster.lost = died
    with pytest.raises(EnginesDiedError, match=r"an inference engine was killed .*its log is in /logs") as told:
        fill(pool)
    assert told.value.under_way == (0, 2)
    assert cluster.stopped == 1 and cluster.killed == 2
    assert len(cluster.options) == 2
    fill(pool)
    assert len(cluster.options) == 4


def test_an_engine_that_says_nothing_ends_the_pool_and_nobody_waits_for_it(cluster: Ray) -> None:
    pool = EnginePool(SPEC)
    pool.start()
    cluster.queue = [FillProgress(rows=1), FillProgress(rows=2), FillProgress(rows=3)]
    cluster.around.silent = [1]
    with pytest.raises(EnginesDiedError, match=r"said nothing for 300 s, .*its log is in /logs") as told:
        fill(pool)
    assert cluster.around.looks == [([0, 1], 300.0)]
    assert told.value.under_way == (0, 2)
    assert (cluster.stopped, cluster.waited, cluster.killed) == (1, [0], 2)
    assert len(cluster.around.released) == cluster.around.ended == 1
    cluster.queue, cluster.around.silent = [FillProgress(rows=3)], []
    fill(pool)
    assert len(cluster.options) == 4


ASKED: list[Any] = [
    lambda pool: pool.answer([None, None], k=0),
    lambda pool: pool.load(Path("/other"), OTHER),
    lambda pool: pool.engines()[1].turn([], leave=0),
    lambda pool: pool.occupancy(),
]


@pytest.mark.parametrize("ask", ASKED)
def test_an_engine_that_says_nothing_is_waited_for_no_longer_whatever_it_was_asked(ask: Any, cluster: Ray) -> None:
    pool = EnginePool(SPEC)
    pool.start()
    cluster.around.silent, cluster.slow = [0], 1
    with pytest.raises(EngineError, match=r"said nothing for 300 s, .*its log is in /logs"):
        ask(pool)
    assert cluster.around.looks == [(None, 300.0)]
    assert cluster.killed == 2 and len(cluster.around.released) == cluster.around.ended == 1
    # New ones may say nothing from the beginning.
    cluster.slow = 1
    with pytest.raises(EngineError, match="said nothing"):
        pool.start()
    cluster.around.silent = []
    pool.start()
    assert len(cluster.options) == 6


def test_nobody_looks_after_engines_that_answer_at_once_and_slow_ones_are_waited_for(cluster: Ray) -> None:
    pool = EnginePool(SPEC)
    pool.start()
    assert cluster.around.looks == []
    cluster.slow = 3
    pool.forget_prefixes()
    assert len(cluster.around.looks) == 3 and cluster.killed == 0


def test_engines_are_spread_over_places_that_all_have_and_that_are_given_back(cluster: Ray) -> None:
    pool = EnginePool(replace(SPEC, key="runtime.teacher_engine"))
    pool.start()
    (wanted,) = cluster.around.wanted
    assert (wanted.count, wanted.bundle, wanted.strategy) == (2, {"CPU": 3}, "SPREAD")
    assert "runtime.teacher_engine.count" in wanted.cure
    assert [each["scheduling_strategy"] for each in cluster.options] == ["SPREAD"] * 2
    pool.release()
    assert cluster.around.released == [wanted]


def test_engines_that_went_with_their_machine_are_replaced_as_far_as_there_is_room(
    cluster: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[float] = []
    clock: Any = SimpleNamespace(engines_up=lambda gpus, **_: counted.append(gpus) or (lambda: None))
    pool = EnginePool(replace(SPEC, settings=EngineSettings(count=3, cpus=3, max_sequences=8)), clock=clock)
    pool.start()
    assert (pool.up, pool.capacity, pool.processes) == (3, 24, 3)
    cluster.lost, cluster.around.room = ActorDiedError(), 2
    with pytest.raises(EnginesDiedError):
        fill(pool)
    fill(pool)
    assert (pool.up, pool.capacity, pool.processes, counted) == (2, 16, 2, [3.0, 2.0])
    assert "the machines that are left have room for 2 of 3 engines" in caplog.text
    assert ("queue", 3, 99, 2) in cluster.calls


OUT_OF_MEMORY = RayTaskError("fill", "traceback", RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
SHORT = EngineSettings(count=2, max_model_len=64, max_batched_tokens=1000, max_sequences=16)


def sizes(cluster: Ray) -> list[tuple[int, int]]:
    """Tokens and sequences of a step, of each engine that was started."""
    return [(each.max_batched_tokens, each.max_sequences) for each in cluster.settings]


def test_engines_that_ran_out_of_memory_in_a_fill_start_again_with_half_the_batch_three_times(
    cluster: Ray, caplog: pytest.LogCaptureFixture
) -> None:
    pool = EnginePool(replace(SPEC, settings=SHORT, key="runtime.teacher_engine"))
    for _ in range(3):
        pool.start()
        cluster.lost = OUT_OF_MEMORY
        with pytest.raises(MemoryRanOutError, match="memory ran out") as told:
            fill(pool)
        assert told.value.under_way == (0, 2)
    pool.start()
    cluster.lost = OUT_OF_MEMORY
    with pytest.raises(EnginesDiedError) as died:
        fill(pool)
    assert type(died.value) is EnginesDiedError
    assert sizes(cluster)[::2] == [(1000, 16), (500, 8), (250, 4), (125, 2)]
    assert caplog.records[0].getMessage() == (
        "memory ran out with max_batched_tokens=1000 and max_sequences=16: engines are started again with less; to "
        "begin with it, write max_batched_tokens: 500 and max_sequences: 8 into runtime.teacher_engine"
    )
    assert len(caplog.records) == 3


def test_engines_that_die_of_anything_else_start_as_they_were(cluster: Ray) -> None:
    pool = EnginePool(replace(SPEC, settings=SHORT))
    pool.start()
    cluster.lost = RayTaskError("fill", "traceback", RuntimeError("a kernel is missing"))
    with pytest.raises(EnginesDiedError) as died:
        fill(pool)
    assert type(died.value) is EnginesDiedError
    fill(pool)
    assert set(sizes(cluster)) == {(1000, 16)}


def test_engines_that_run_out_of_memory_at_their_start_or_their_check_start_again_lighter(cluster: Ray) -> None:
    pool = EnginePool(replace(SPEC, settings=SHORT))
    cluster.lost = OUT_OF_MEMORY
    pool.start()
    assert sizes(cluster)[::2] == [(1000, 16), (500, 8)]
    cluster.lost = OUT_OF_MEMORY
    with pytest.raises(AttributeError):
        # The fake's answers are no answers.
        pool.check([], stop_ids=(), bos_id=None, reference=lambda _: [])
    assert sizes(cluster)[::2] == [(1000, 16), (500, 8), (250, 4)]


def test_an_engine_that_cannot_be_lighter_is_not_started_again(cluster: Ray) -> None:
    least = EngineSettings(count=2, max_model_len=64, max_batched_tokens=64, max_sequences=1)
    pool = EnginePool(replace(SPEC, settings=least))
    cluster.lost = OUT_OF_MEMORY
    with pytest.raises(EngineError, match="memory ran out"):
        pool.start()
    assert len(cluster.options) == 2


def answering(count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[EnginePool, list[Any]]:
    """A pool of so many engines, and what each of them was asked. Engine i takes i + 1 seconds."""
    pool, asked = EnginePool(SPEC), list[Any]()

    def actor(index: int) -> Any:
        def answer(requests: Any, *, k: int) -> TimedAnswers:
            asked.append((index, list(requests), k))
            return TimedAnswers(tuple(f"says {each}" for each in requests), index + 1.0, "2 CPUs")

        def forget() -> None:
            asked.append((index, "forget"))

        methods = {"answer": answer, "forget_prefixes": forget}
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})

    pool._actors = [actor(index) for index in range(count)]
    monkeypatch.setattr(actor_pool.ray, "get", lambda references: references)
    monkeypatch.setattr(actor_pool.ray, "wait", lambda references, **_: (references, []))
    return pool, asked


def test_requests_are_dealt_to_all_engines_and_answers_come_back_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, asked = answering(3, monkeypatch)
    requests: Any = list(range(7))
    answers = pool.answer(requests, k=4)
    assert asked == [(0, [0, 3, 6], 4), (1, [1, 4], 4), (2, [2, 5], 4)]
    assert answers == TimedAnswers(tuple(f"says {each}" for each in requests), 3.0, "3 engines, each 2 CPUs")  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "engines"), [(0, [0]), (1, [0]), (2, [0, 1])])
def test_engines_without_a_request_are_not_asked(
    count: int, engines: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, asked = answering(3, monkeypatch)
    requests: Any = list(range(count))
    answers = pool.answer(requests, k=0)
    assert len(answers.outcomes) == count and [each[0] for each in asked] == engines
    assert answers.seconds == len(engines)


def test_what_is_measured_is_one_engine_and_all_of_them_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, asked = answering(2, monkeypatch)
    requests: Any = list(range(5))
    pool.forget_prefixes()
    answers = pool.answer_alone(requests, k=0)
    assert asked == [(0, "forget"), (1, "forget"), (0, requests, 0)]
    assert (answers.seconds, answers.measured_on, len(answers.outcomes)) == (1.0, "2 CPUs", 5)


def rows_of(sequence: tuple[int, ...]) -> ReferenceRows:
    return ReferenceRows(-np.arange(1, len(sequence), dtype=np.float32) / 8, np.asarray(sequence[1:], dtype=np.int32))


def record(sequence: tuple[int, ...], *, prompt_len: int, off: float = 0.0) -> TeacherRecord:
    rows = rows_of(sequence)
    first = prompt_len - 1
    return TeacherRecord(
        key=sequence_key("a" * 64, sequence, prompt_len),
        token_ids=np.asarray(sequence, dtype=np.int32),
        prompt_len=prompt_len,
        finish="length",
        origin="decode",
        topk_ids=rows.best_ids[first:, None],
        target_logprobs=rows.target_logprobs[first:] + np.float32(off),
    )


def checked(*engines: CheckAnswers, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A pool of engines that say so; the sequences of every forward pass that was asked for."""
    spec: Any = SimpleNamespace(model_dir=Path("/model"), purpose="fill", memory=None, log_dir=Path("/logs"))
    pool = EnginePool(spec)
    said = iter(engines)
    check = SimpleNamespace(remote=lambda *_, **__: next(said))
    pool._actors = [SimpleNamespace(check=check) for _ in engines]  # type: ignore[misc]
    monkeypatch.setattr(actor_pool.ray, "get", lambda references: references)
    monkeypatch.setattr(actor_pool.ray, "wait", lambda references, **_: (references, []))
    passes: list[Any] = []

    def compute(sequences: Any) -> list[ReferenceRows]:
        passes.append(tuple(sequences))
        return [rows_of(sequence) for sequence in sequences]

    pool.check([], stop_ids=(), bos_id=None, reference=compute)
    return passes


def answers(*sequences: tuple[int, ...], off: float = 0.0) -> CheckAnswers:
    written = tuple(record(sequence, prompt_len=2) for sequence in sequences)
    return CheckAnswers(written, tuple(record(sequence, prompt_len=2, off=off) for sequence in sequences))


def test_all_engines_are_judged_by_one_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    same = answers(*SEQUENCES)
    assert checked(same, same, answers((3, 4, 9)), monkeypatch=monkeypatch) == [(*SEQUENCES, (3, 4, 9))]


def test_one_engine_of_several_that_says_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    same = answers(*SEQUENCES)
    with pytest.raises(EngineError, match=r"when scoring.*0\.500 nats"):
        checked(same, answers(*SEQUENCES, off=0.5), same, monkeypatch=monkeypatch)
