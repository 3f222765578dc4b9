"""A worker group from the driver's side: its places, its stages, their results and what is said of a failure."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from configs import ConfigError, TrainingError
from configs.models import ModelSource
from configs.schema import ModelShape, TrainingSettings
from configs.stages import StageConfig
from configs.task_stages import TaskStageConfig
from orchestration.cluster import worker_group
from orchestration.cluster.deaths import WorkersFailedError
from orchestration.cluster.places import Places, Wanted
from orchestration.cluster.training_worker import PLACED, Place
from orchestration.cluster.worker_group import GroupShape, StageUnderWay, WorkerGroup, train_in_group
from orchestration.inputs.models import materialise
from orchestration.plan.colocation import GPU_SHARES

SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
LOG = Path("/runs/x/logs")
TWO = GroupShape(2, 1.0, "cpu")
SEQUENCES = StageConfig(objective="seqkd", steps=1)


class FakeRay:
    """Workers that answer at once with what `says` names; an error is what they fail with."""

    def __init__(self, **says: list[Any]) -> None:
        self.says = {"place": [Place("here"), Place("here")], "meet": [None] * 2, "train": [None] * 2} | says
        self.asked: list[tuple[Any, ...]] = []
        self.options: list[dict[str, Any]] = []
        self.killed: list[int] = []
        self.wanted: list[Wanted] = []
        self.waited: list[bool] = []

    def remote(self, _: type) -> Any:
        def start() -> Any:
            index = len(self.options) - 1
            methods = {name: SimpleNamespace(remote=self._method(name, index)) for name in self.says}
            return SimpleNamespace(index=index, **methods)

        def options(**chosen: Any) -> Any:
            self.options.append(chosen)
            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    def _method(self, name: str, index: int) -> Any:
        def ask(*args: Any, **named: Any) -> tuple[str, int]:
            self.asked.append((name, index, *args, *named.values()))
            return name, index

        return ask

    def wait(self, asked: list[Any], *, num_returns: int = 1, timeout: float | None = None) -> Any:
        return asked[:num_returns], asked[num_returns:]

    def get(self, asked: Any, timeout: float | None = None) -> Any:
        if isinstance(asked, list):
            return [self.get(each) for each in asked]
        answer = self.says[asked[0]][asked[1]]
        if isinstance(answer, RayError):
            raise answer
        return answer

    def kill(self, worker: Any) -> None:
        self.killed.append(worker.index)


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("train", f"a traceback\n{type(error).__name__}: {error}", error)


def grouped(
    fake: FakeRay,
    folder: Path,
    patch: pytest.MonkeyPatch,
    shape: GroupShape = TWO,
    *,
    refused: Exception | None = None,
) -> WorkerGroup:
    patch.setattr(worker_group, "ray", fake)

    class Given(Places):
        def release(self) -> None:
            fake.asked.append(("remove", self.count))

    def begin(wanted: Wanted) -> Places:
        if refused is not None:
            raise refused
        fake.wanted.append(wanted)
        return Given(wanted.count)

    patch.setattr(worker_group, "begin_to_take", begin)
    patch.setattr(worker_group, "wait_for", lambda places, wanted, *, given_up: fake.waited.append(given_up()))
    return WorkerGroup(shape, meeting=folder / "meeting")


def job(folder: Path) -> Any:
    return SimpleNamespace(work_dir=folder)


def test_workers_start_once_and_train_one_stage_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    group = grouped(fake, tmp_path, monkeypatch)
    first, second = job(tmp_path / "a"), job(tmp_path / "b")
    group.train(first, log_dir=LOG)
    group.train(second, log_dir=LOG)
    assert [each[:2] for each in fake.asked] == [
        (name, index) for name in ("place", "meet", "train", "train") for index in range(2)
    ]
    assert [each[2:] for each in fake.asked[4:]] == [(first, LOG)] * 2 + [(second, LOG)] * 2
    stores = {each[3] for each in fake.asked if each[0] == "meet"}
    assert len(stores) == 1 and stores.pop().parent == tmp_path / "meeting"
    assert (tmp_path / "meeting").stat().st_mode & 0o077 == 0
    assert group.answers()
    group.end()
    assert fake.killed == [0, 1] and fake.asked[-1] == ("remove", 2)
    (wanted,) = fake.wanted
    assert (wanted.count, wanted.bundle, wanted.strategy) == (2, {"CPU": 1.0}, "PACK")
    assert fake.waited == [False]
    assert not (tmp_path / "meeting").exists()
    # Ended before its next stage could start: nothing is started behind the back of whoever ended it.
    group.train(first, log_dir=LOG)
    assert len(fake.options) == 2


def test_a_worker_takes_its_share_of_a_gpu_and_threads_for_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    shape = GroupShape(2, 3.0, "gpu", GPU_SHARES["training worker"])
    grouped(fake, tmp_path, monkeypatch, shape).train(job(tmp_path), log_dir=LOG)
    assert shape.bundle == {"CPU": 3.0, "GPU": 0.6}
    assert [(each["num_cpus"], each["num_gpus"], each["max_restarts"]) for each in fake.options] == [(3.0, 0.6, 0)] * 2
    assert fake.options[0]["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"
    assert {each[4] for each in fake.asked if each[0] == "meet"} == {"nccl"}


def test_a_group_for_which_there_is_no_room_says_so_in_the_stage_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = ConfigError("2 training workers of 1 CPU each do not fit the cluster")
    group = grouped(FakeRay(), tmp_path, monkeypatch, refused=full)
    failing: Any = SimpleNamespace(work_dir=tmp_path, stage=None)
    stage = StageUnderWay(failing, group=group, log_dir=LOG)
    stage.wait(60)
    with pytest.raises(ConfigError) as told:
        stage.raise_failure()
    assert told.value is full


@pytest.mark.parametrize("error", [ActorDiedError(), GetTimeoutError("too late")])
def test_a_worker_that_does_not_answer_is_noticed(
    error: RayError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    group = grouped(fake, tmp_path, monkeypatch)
    group.train(job(tmp_path), log_dir=LOG)
    fake.says["place"][1] = error
    assert not group.answers()


def test_all_that_failed_is_told_and_what_a_worker_raised_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, left = RayError("The actor died.\nPages follow"), raised(RuntimeError("Connection closed by peer"))
    group = grouped(FakeRay(train=[killed, left]), tmp_path, monkeypatch)
    with pytest.raises(WorkersFailedError, match="Connection closed by peer") as caught:
        group.train(job(tmp_path), log_dir=LOG)
    assert caught.value.failures == {0: killed, 1: left}
    assert str(WorkersFailedError({1: killed})).endswith("\nThe actor died.")


class Stage:
    """What a stage is to the driver that follows it; `polls` answers to `running`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing is started."""

    def running(self, _: float) -> bool:
        return False

    def wait(self, _: float) -> None:
        """It has ended."""

    def raise_failure(self) -> None:
        """Nothing went wrong."""


def follow(folder: Path, stage: type[Stage], patch: pytest.MonkeyPatch, **given: Any) -> dict[str, object]:
    patch.setattr(worker_group, "StageUnderWay", stage)
    group = WorkerGroup(GroupShape(1, 1.0, "gpu", given.pop("gpu_share", 1.0)), meeting=folder)
    nothing = {"on_step": lambda _: None, "meanwhile": lambda: None}
    return train_in_group(job(folder), group=group, log_dir=folder, **(nothing | given))


@pytest.mark.parametrize(("share", "called"), [(1.0, [1, 2, 3, 4]), (0.6, [3, 4])])
def test_engines_wait_until_the_workers_have_their_places(
    share: float, called: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls: list[int] = []

    class Placed(Stage):
        def running(self, _: float) -> bool:
            polls.append(len(polls) + 1)
            if polls[-1] == 3:
                (tmp_path / PLACED).touch()
            (tmp_path / "result.json").write_text("{}")
            return polls[-1] < 5

    (tmp_path / PLACED).touch()
    found: list[int] = []
    follow(tmp_path, Placed, monkeypatch, gpu_share=share, meanwhile=lambda: found.append(polls[-1]))
    assert found == called


def test_the_result_is_what_the_leader_wrote_and_not_that_of_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = ['{"steps": 3}', "[]"]

    class Writing(Stage):
        def __init__(self, *_: Any, **__: Any) -> None:
            (tmp_path / "result.json").write_text(written.pop(0))

    assert follow(tmp_path, Writing, monkeypatch) == {"steps": 3}
    with pytest.raises(TrainingError, match=r"result\.json: is not the result of a training"):
        follow(tmp_path, Writing, monkeypatch)
    with pytest.raises(TrainingError, match="the training ended without a result"):
        follow(tmp_path, Stage, monkeypatch)


def test_an_interrupt_asks_the_workers_for_a_checkpoint_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []

    class Interrupted(Stage):
        def running(self, _: float) -> bool:
            raise KeyboardInterrupt

        def wait(self, _: float) -> None:
            waited.append((tmp_path / "STOP").exists())

    with pytest.raises(KeyboardInterrupt):
        follow(tmp_path, Interrupted, monkeypatch)
    assert waited == [True]


def failing(folder: Path, error: Exception, model_dir: Path, *, learned: Any = SEQUENCES) -> StageUnderWay:
    """A stage whose group fails with this error."""

    def train(*_: Any, **__: Any) -> None:
        raise error

    what: Any = SimpleNamespace(
        start="m",
        model_dir=model_dir,
        settings=TrainingSettings(workers=1),
        stage=learned,
    )
    group: Any = SimpleNamespace(shape=TWO, train=train)
    stage = StageUnderWay(what, group=group, log_dir=LOG)
    stage.wait(30.0)
    return stage


def test_a_group_without_memory_names_what_its_workers_were_planned_with(tmp_path: Path) -> None:
    model = materialise(ModelSource(random=SHAPE), models_root=tmp_path)
    stage = failing(tmp_path, OutOfMemoryError("the node ran low on memory"), model.directory)
    with pytest.raises(TrainingError, match=r"each was planned with 1\.\d GiB, this machine .*micro_batch_tokens="):
        stage.raise_failure()


def test_nothing_was_planned_for_the_workers_of_a_task(tmp_path: Path) -> None:
    task = TaskStageConfig(objective="hard_labels", steps=1)
    model = materialise(ModelSource(random=SHAPE), models_root=tmp_path)
    stage = failing(tmp_path, OutOfMemoryError("the node ran low on memory"), model.directory, learned=task)
    with pytest.raises(TrainingError, match="ended because memory ran out") as refused:
        stage.raise_failure()
    assert "planned" not in str(refused.value)


def test_a_killed_worker_is_named_even_if_the_others_failed_first(tmp_path: Path) -> None:
    killed = RayError("The actor died unexpectedly before finishing this task. SYSTEM_ERROR connection error code 2.")
    error = WorkersFailedError({0: raised(RuntimeError("Connection closed by peer")), 1: killed})
    said = r"^a training worker was killed without an error of its own.*its last checkpoint is kept, run again to go on"
    with pytest.raises(TrainingError, match=said):
        failing(tmp_path, error, tmp_path / "gone").raise_failure()


def test_an_error_of_ours_comes_back_as_it_was_raised(tmp_path: Path) -> None:
    ours = TrainingError("no finite gradient in the 10 steps up to 12")
    error = WorkersFailedError({0: RayError("gone"), 1: raised(ours)})
    with pytest.raises(TrainingError, match=r"^no finite gradient in the 10 steps up to 12$"):
        failing(tmp_path, error, tmp_path / "gone").raise_failure()


def test_a_stage_that_works_on_after_an_interrupt_is_still_waited_for() -> None:
    """`Thread.join` of Python 3.11 takes a thread for ended once an interrupt came while it waited."""
    may_end = threading.Event()
    group: Any = SimpleNamespace(train=lambda *_args, **_named: may_end.wait(60))
    stage = StageUnderWay(job(LOG), group=group, log_dir=LOG)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stage.running(30.0)
    assert stage.running(0.1)
    may_end.set()
    stage.wait(30.0)
    assert not stage.running(0.0)
    timer.join()
