"""What a run computes with: the cluster is attached to once, pools know what they serve, all ends with the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import FakeRun, fake_run, model_in, namespace

from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.warm_groups import WarmGroups
from orchestration.cluster.worker_group import GroupShape
from orchestration.inputs.doors import TeacherDoor
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import identity_of
from orchestration.pipeline import compute as module
from orchestration.pipeline import workers
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.session import Session
from orchestration.plan.colocation import GPU_SHARES
from orchestration.plan.hardware import Hardware
from teacher_server.http.client import DoorTeacher
from teacher_server.http.connection import DoorSettings


class NotedPool:
    """Notes what it was made of, and when it is released."""

    made: list[NotedPool]
    calls: list[str]

    def __init__(self, spec: EngineSpec, *, clock: Any, room: Any, joules: Any, started: Any) -> None:
        self.spec, self.clock, self.room = spec, clock, room
        self.made.append(self)

    def release(self) -> None:
        self.calls.append(f"release {self.spec.name}")


@pytest.fixture
def calls(ray_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to Ray and to engines."""
    monkeypatch.setattr(NotedPool, "made", [], raising=False)
    monkeypatch.setattr(NotedPool, "calls", ray_calls, raising=False)
    monkeypatch.setattr(workers, "EnginePool", NotedPool)
    return ray_calls


def computing(run: FakeRun, hardware: Hardware | None = None) -> Compute:
    settings = replace(run.settings, hardware=hardware or run.settings.hardware)
    return Compute(settings, run.journal, Session(settings.directory))


def test_a_cluster_is_started_once_and_outlives_the_experiment(calls: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    with Session(run.settings.directory) as shared:
        first, second = (Compute(run.settings, run.journal, shared) for _ in range(2))
        first.close()
        assert calls == []
        first.need_cluster()
        first.need_cluster()
        first.teacher_pool(run.teacher())
        first.close()
        second.need_cluster()
        second.close()
    probes = "probe runtime.cache_root, runtime.run_root"
    assert calls == ["attach to None with 0 GPUs", probes, "release engine", "detach"]
    assert [title for title, _ in run.journal.console.times] == ["ray"]
    assert "local, loopback only" in run.said


def test_the_cluster_of_a_user_has_to_have_gpus_where_they_are_used(calls: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path, runtime={"ray_address": "10.0.0.1:6379"})
    computing(run, Hardware("gpu", 2, 4, 80.0)).need_cluster()
    assert calls[:2] == ["attach to 10.0.0.1:6379 with 4 GPUs", "require GPUs at 10.0.0.1:6379"]
    assert "attached to 3 nodes" in run.said


def test_the_answers_of_a_teacher_are_counted_and_its_engines_take_the_room_of_waiting_groups(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    teacher = run.teacher()
    pool: Any = computing(run).teacher_pool(teacher)
    spec = pool.spec
    assert (spec.ledger, pool.clock) == (run.journal.ledger.directory.absolute(), run.journal.ledger)
    assert (spec.identity, spec.max_logprobs, spec.purpose) == (teacher.identity, 4, "fill")
    assert (spec.settings, spec.log_dir) == (run.config.runtime.teacher_engine, run.settings.logs)
    noted: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(WarmGroups, "room", contextmanager(lambda _: (yield noted.append("room"))))
        with pool.room():
            assert noted == ["room"]


def test_the_engines_of_a_student_serve_the_next_of_its_shape_and_dtype(calls: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    compute = computing(run)
    models = [model_in(tmp_path, layers=layers, seed=seed) for layers, seed in ((1, 1), (1, 2), (2, 1))]
    files = [open_model(model, label="m") for model in models]

    def pool(at: int, dtype: str) -> Any:
        return compute.student_pool(files[at], identity_of(files[at], config=run.config, dtype=dtype))

    first = pool(0, "float32")
    assert (first.spec.max_logprobs, first.spec.ledger) == (4, None)
    assert pool(1, "float32") is first and calls == []
    other = pool(1, "bfloat16")
    assert other is not first and calls == ["release engine"]
    assert pool(2, "bfloat16") is not other and calls == ["release engine"] * 2


@pytest.mark.parametrize("colocate", [True, False])
def test_engines_of_a_rollout_have_names_seeds_and_shares_of_their_own(
    colocate: bool, calls: list[str], tmp_path: Path
) -> None:
    run = fake_run(tmp_path, runtime={"colocate": colocate})
    teacher = run.teacher()
    files = open_model(model_in(tmp_path), label="student")
    learner = identity_of(files, config=run.config, dtype="float32")
    compute = computing(run, Hardware("gpu", 1, 1, 80.0))
    student, above = (pool.spec for pool in compute.rollout_pools(student=files, learner=learner, teacher=teacher))  # type: ignore[attr-defined]
    assert [(spec.name, spec.seed, spec.identity) for spec in (student, above)] == [
        ("student-engine", 1000, learner), ("teacher-engine", 2000, teacher.identity),
    ]  # fmt: skip
    assert {student.purpose, above.purpose} == {"shared rollout" if colocate else "rollout"}
    shares = [GPU_SHARES["student engine"], GPU_SHARES["teacher engine"]] if colocate else [1.0, 1.0]
    assert [student.gpu_share, above.gpu_share] == shares
    # They work beside a group, which must not be ended for them, and take nothing that a waiting one has.
    assert {compute._pools[0].room, compute._pools[1].room} == {nullcontext}  # type: ignore[attr-defined]
    # The driver counts what rollouts ask.
    assert (student.ledger, above.ledger) == (None, None)


def test_work_is_handed_to_the_cluster_with_the_places_of_the_run(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    compute = computing(run)
    given: list[tuple[Any, ...]] = []

    def noted(name: str) -> Callable[..., Any]:
        return lambda *args, **named: given.append((name, args, named)) or {"of": name}

    for name in ("derive_in_worker", "score_students", "score_exposure"):
        monkeypatch.setattr(module, name, noted(name))
    monkeypatch.setattr(WarmGroups, "train", lambda _, *args, **named: noted("train")(*args, **named))
    monkeypatch.setattr(WarmGroups, "room", contextmanager(lambda _: (yield calls.append("room"))))
    job, on_step = namespace(settings=run.config.runtime.training), lambda _: None
    assert compute.train(job, on_step=on_step) == {"of": "train"}
    meanwhile = lambda: None  # noqa: E731
    compute.train(job, on_step=on_step, meanwhile=meanwhile, gpu_share=0.25)
    compute.derive(job)
    assert compute.score([job]) == {"of": "score_students"}
    read: Any = compute.score_exposure(job)
    assert read == {"of": "score_exposure"}
    # Once attached, it stays. Tasks take the CPUs of groups that wait.
    assert len(calls) == 5 and calls[2:] == ["room"] * 3
    (_, args, off_policy), (_, _, on_policy), derived, scored, exposed = given
    assert args == (job,) and off_policy["on_step"] is on_step
    assert off_policy["log_dir"] == run.settings.logs
    workers = run.config.runtime.training
    shape = GroupShape(workers.workers, workers.cpus_per_worker, "cpu")
    assert (off_policy["shape"], on_policy["shape"]) == (shape, replace(shape, gpu_share=0.25))
    assert off_policy["meanwhile"]() is None and on_policy["meanwhile"] is meanwhile
    assert derived[1:] == ((job,), {"cpus": 2}) and scored[1:] == (([job],), {"cpus": 2})
    assert exposed[1:] == ((job,), {"cpus": 2})


def test_a_teacher_behind_a_door_is_asked_there_and_needs_no_engine(calls: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    own = run.teacher()
    facts = DoorTeacher("noise", own.identity, own.files.vocab, 4, 64, own.files.stop_ids, None)
    door = TeacherDoor(DoorSettings("https://teacher.example"), facts)
    compute, teacher = computing(run), replace(own, door=door)
    files = open_model(model_in(tmp_path), label="student")
    learner = identity_of(files, config=run.config, dtype="float32")
    writes, scores = compute.rollout_pools(student=files, learner=learner, teacher=teacher)
    assert isinstance(compute.teacher_pool(teacher), DoorPool) and isinstance(scores, DoorPool)
    assert [pool.spec.name for pool in NotedPool.made] == ["student-engine"] and writes is NotedPool.made[0]
    compute.close()
    assert calls == ["release student-engine"]
