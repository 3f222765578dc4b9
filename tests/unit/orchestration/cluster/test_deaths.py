"""A process that is gone is told of in one line: what it needed, what there is, what makes it smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import (
    ActorDiedError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from configs import DistillError, EngineError, ModelError, TrainingError
from configs.schema import EngineSettings, ModelShape
from orchestration.cluster import deaths
from orchestration.cluster.deaths import WorkersFailedError, lost, memory_ran_out
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.hardware import HostMemory
from orchestration.plan.host_memory import engine_on_host
from orchestration.plan.memory import engine_memory

LOG = Path("/runs/x/logs")
SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
SETTINGS = EngineSettings(kv_cache_gib=2.5)
FIT = engine_on_host(
    engine_memory(
        PlannedShape("m", SHAPE, assumed=False), label="e", key="runtime.teacher_engine", settings=SETTINGS,
        dtype="bfloat16",
    ),
    key="runtime.teacher_engine", settings=SETTINGS,
)  # fmt: skip
ADVERTISEMENT = (
    "Task was killed due to the node running low on memory.\nMemory on the node was 15.2GB / 15.6GB (0.97).\n"
    "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/...\n"
    "Consider provisioning more memory on this node. Set max_restarts and max_task_retries to enable retry."
)
GONE = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: EngineActor\nThe actor is dead because its "
    "worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a "
    "connection error code 2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL "
    "by OOM killer due to high memory usage."
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "read_host_memory", lambda: HostMemory(15.6, 1.25))


def said(error: BaseException, *, kind: type[DistillError] = EngineError) -> DistillError:
    told = lost(error, what="an inference engine", fit=FIT, log=LOG, kind=kind, kept="all is kept")
    assert "\n" not in str(told)
    assert not any(word in str(told) for word in ("docs.ray", "max_restarts", "potential root", "class_name"))
    return told


def _actor_died(text: str) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = text
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError(ADVERTISEMENT), "ended because memory ran out"),
        (WorkersFailedError({1: OutOfMemoryError(ADVERTISEMENT)}), "ended because memory ran out"),
        (WorkersFailedError({0: MemoryError()}), "ended because memory ran out"),
        (_actor_died(GONE), "was killed without an error of its own"),
        (WorkerCrashedError(), "was killed without an error of its own"),
    ],
)
def test_a_process_without_memory_names_need_room_and_cure(error: Exception, words: str) -> None:
    told = said(error)
    assert type(told) is EngineError
    # 2.5 GiB of KV cache and 1 GiB of the process; the rest of this little model is below a tenth.
    assert words in str(told) and "each was planned with 3.5 GiB" in str(told)
    assert "this machine has 15.6 GiB, 1.2 free now: lower runtime.teacher_engine.kv_cache_gib=2.5" in str(told)
    assert str(told).endswith("; all is kept; its log is in /runs/x/logs")


def test_torch_and_cuda_without_memory_are_known() -> None:
    for text in ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "CUDA out of memory. Tried"):
        error = RayTaskError("f", "traceback", RuntimeError(text))
        assert "memory ran out: each was planned with" in str(said(error, kind=TrainingError))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("the engine cannot be used: it died of OutOfMemoryError: CUDA out of memory. Tried"), True),
        (EngineError("/model: the engine did not start: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("Worker failed with error 'HIP out of memory. Tried', please check the stack trace"), True),
        (MemoryError(), True),
        (EngineError("the engine cannot be used: it died of RuntimeError: expected a tensor"), False),
    ],
)
def test_it_is_known_of_what_an_engine_died(error: Exception, expected: bool) -> None:
    told = RayTaskError("f", "traceback", error)
    assert memory_ran_out(told) is expected
    # And of what is raised in its place.
    lost_engine = said(told)
    lost_engine.__cause__ = told
    assert memory_ran_out(lost_engine) is expected


def test_what_was_killed_without_a_word_may_have_died_of_anything() -> None:
    assert memory_ran_out(OutOfMemoryError(ADVERTISEMENT))
    for error in (_actor_died(GONE), WorkerCrashedError()):
        assert not memory_ran_out(error)
        assert not memory_ran_out(said(error))


def test_an_error_of_ours_comes_back_as_it_was() -> None:
    ours = ModelError("no config.json")
    assert said(RayTaskError("f", "traceback", ours)) is ours
    assert said(WorkersFailedError({0: RayTaskError("f", "traceback", ours)})) is ours


def test_a_lost_cluster_is_no_reason_to_try_again() -> None:
    told = said(LocalRayletDiedError())
    assert type(told) is DistillError
    assert str(told).startswith("the Ray cluster of this run is gone")


def test_the_log_that_is_named_is_there(tmp_path: Path) -> None:
    log = tmp_path / "scoring.log"
    told = lost(RayError("it did not import"), what="scoring", fit=None, log=log, kind=EngineError)
    assert str(told).endswith(f"its log is in {tmp_path}")
    log.touch()
    told = lost(RayError("it broke"), what="scoring", fit=None, log=log, kind=EngineError)
    assert str(told).endswith(f"its log is in {log}")


def test_any_other_failure_keeps_its_first_sentence() -> None:
    assert "failed: The node is gone; all is kept" in str(said(NodeDiedError("The node is gone. Consider this.")))


def test_what_a_worker_of_a_group_said_is_told() -> None:
    snippet = "[Rank 0 Error Snippet]:\n  File somewhere, line 1\nImportError: cannot import name 'x'"
    told = str(said(WorkersFailedError({1: RayTaskError("train", snippet, ImportError("x"))})))
    assert "failed: ImportError: cannot import name 'x'; all is kept" in told
