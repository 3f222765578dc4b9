"""Processes that train one stage after the other, and a stage as the driver follows it.

A group is actors of Ray in one placement group, so that all of them get their places or none. See
docs/decisions/0022-warm-worker-groups.md.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from configs import DistillError, ModelError, TrainingError
from configs.architecture import read_architecture
from configs.models import Device
from configs.places import CURVES
from configs.regular_files import read_json
from configs.stages import StageConfig
from orchestration.cluster.deaths import WorkersFailedError, lost
from orchestration.cluster.places import Places, Wanted, begin_to_take, wait_for
from orchestration.cluster.training_worker import PLACED, RESULT, STOP, TrainingWorker, seats
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.curves import CurveReader
from orchestration.plan.host_memory import worker_on_host
from orchestration.plan.memory import MemoryFit, training_memory
from student_train.job import StageJob, StepMetrics

logger = logging.getLogger(__name__)

POLL_S = 0.5
STOP_GRACE_S = 60.0
"""How long a stopped worker group may take to write its checkpoint."""

LAST_WORDS_S = 5.0
"""How long the others may take to fail too once one worker has: whoever lost a peer often says so before Ray does."""

ANSWER_S = 30.0
"""A worker that waits for a stage and does not answer in this time is taken for dead."""


@dataclass(frozen=True, slots=True)
class GroupShape:
    """What a group is made of. Stages that ask for the same can have the same group, one after the other."""

    workers: int
    cpus_per_worker: float
    accelerator: Device
    gpu_share: float = 1.0

    @property
    def bundle(self) -> dict[str, float]:
        """What each worker reserves in Ray's books."""
        gpus = {"GPU": self.gpu_share} if self.accelerator == "gpu" else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    @property
    def wanted(self) -> Wanted:
        """The places of all workers: as close to each other as there is room."""
        cure = "lower runtime.training.workers"
        return Wanted("training workers", self.workers, self.bundle, "PACK", cure)

    @property
    def environment(self) -> dict[str, str]:
        """What each worker is started with."""
        threads = max(int(self.cpus_per_worker), 1)
        return {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}

    @property
    def backend(self) -> str:
        """The library that its collectives go through."""
        return "nccl" if self.accelerator == "gpu" else "gloo"


class WorkerGroup:
    """Workers of one shape. They start with the first stage and wait for the next one after each."""

    def __init__(self, shape: GroupShape, *, meeting: Path) -> None:
        self.shape = shape
        self._meeting = meeting
        self._places: Places | None = None
        self._workers: list[ray.actor.ActorHandle] = []
        self._ended = False
        self.started: tuple[float, float] | None = None
        """When it began to start, and when it was there, in seconds since 1970; for whoever takes note of it."""
        self._changing = threading.Lock()

    def train(self, job: StageJob, *, log_dir: Path) -> None:
        """Train a stage to its end, or until it is asked to stop; blocks. A group that was ended trains nothing.

        Raises:
            WorkersFailedError: one of the workers failed. The group is of no use any more.
            ConfigError: the machines have no room for them.
        """
        if not self._workers:
            self._start()
        _all([worker.train.remote(job, log_dir=log_dir) for worker in self._workers])

    def answers(self) -> bool:
        """Whether all workers still live; asked while they wait for a stage."""
        try:
            ray.get([worker.place.remote() for worker in self._workers], timeout=ANSWER_S)
        except RayError:
            return False
        return True

    def end(self) -> None:
        """End the workers wherever they are, and give their places back."""
        with self._changing:
            self._ended = True
            # Where the cluster itself is gone there is nothing to end, and another error says so.
            for worker in self._workers:
                with suppress(RayError):
                    ray.kill(worker)
            if self._places is not None:
                self._places.release()
            self._workers, self._places = [], None
        # Last: torch aborts a process that finds its store gone.
        shutil.rmtree(self._meeting, ignore_errors=True)

    def _start(self) -> None:
        started, began = time.monotonic(), time.time()
        workers, taken = self._placed(), self._places
        if taken is not None:
            wait_for(taken, self.shape.wanted, given_up=lambda: self._ended)
        places = _all([worker.place.remote() for worker in workers])
        logger.info("%d workers are there after %.1f s", len(workers), time.monotonic() - started)
        self._meeting.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A store that was used cannot be used again.
        store = self._meeting / secrets.token_hex(8)
        met = [
            worker.meet.remote(seat, store=store, backend=self.shape.backend)
            for worker, seat in zip(workers, seats(places), strict=True)
        ]
        _all(met)
        self.started = began, began + time.monotonic() - started
        logger.info("they have met after %.1f s", time.monotonic() - started)

    def _placed(self) -> list[ray.actor.ActorHandle]:
        """Workers that begin as soon as there is room for all of them; none if the group was ended before that."""
        with self._changing:
            if not self._ended:
                self._places = places = begin_to_take(self.shape.wanted)
                self._workers = [self._worker(index, places) for index in range(places.count)]
            return self._workers

    def _worker(self, index: int, places: Places) -> ray.actor.ActorHandle:
        bundle = self.shape.bundle
        actor = ray.remote(TrainingWorker).options(
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            max_restarts=0,
            runtime_env={"env_vars": self.shape.environment},
            **places.options(index),
        )
        return actor.remote()


def train_in_group(
    job: StageJob,
    *,
    group: WorkerGroup,
    log_dir: Path,
    on_step: Callable[[StepMetrics], None],
    meanwhile: Callable[[], None],
) -> dict[str, object]:
    """Train a stage in a group, which is started if need be; returns the fields of its `TrainResult`.

    `meanwhile` is called again and again while the worker group works, to do what it needs from outside. On an
    interrupt, or an error of `meanwhile`, the worker group is asked to write a checkpoint before the error is raised.
    Workers that take less than a whole GPU leave the rest to what `meanwhile` starts, which then has to wait until
    all of them have their places. After any error the group has to be ended.

    Raises:
        TrainingError: a worker failed; the checkpoint of the last save remains.
    """
    job.work_dir.mkdir(parents=True, exist_ok=True)
    stop_file, result_file, placed_file = (job.work_dir / name for name in (STOP, RESULT, PLACED))
    for file in (stop_file, result_file, placed_file):
        file.unlink(missing_ok=True)
    stage = StageUnderWay(job, group=group, log_dir=log_dir)
    curve = CurveReader(job.work_dir / CURVES)
    try:
        while stage.running(POLL_S):
            for metrics in curve.new():
                on_step(metrics)
            if group.shape.gpu_share == 1.0 or placed_file.exists():
                meanwhile()
    except BaseException:
        stop_file.touch()
        stage.wait(STOP_GRACE_S)
        raise
    stage.raise_failure()
    for metrics in curve.new():
        on_step(metrics)
    if not result_file.exists():
        raise TrainingError(f"the training ended without a result; see {log_dir}")
    result = read_json(result_file)
    if not isinstance(result, dict):
        raise TrainingError(f"{result_file}: is not the result of a training; see {log_dir}")
    return result


class StageUnderWay:
    """A stage in a thread, so that the driver stays free to follow the curve and to be interrupted."""

    def __init__(self, job: StageJob, *, group: WorkerGroup, log_dir: Path) -> None:
        self._job, self._group, self._log_dir = job, group, log_dir
        self._error: Exception | None = None
        # Not the thread's own `join`: an interrupt there makes Python 3.11 take the thread for ended.
        self._ended = threading.Event()
        threading.Thread(target=self._train, daemon=True).start()

    def running(self, seconds: float) -> bool:
        """Wait up to `seconds`, then say whether the worker group still works."""
        return not self._ended.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Give the worker group time to end the stage by itself."""
        deadline = time.monotonic() + seconds
        while self.running(POLL_S) and time.monotonic() < deadline:
            pass

    def raise_failure(self) -> None:
        """Raise what ended the stage before its time, if anything did."""
        if self._error is None:
            return
        raise lost(
            self._error,
            what="a training worker",
            fit=_planned(self._job, accelerator=self._group.shape.accelerator),
            log=self._log_dir,
            kind=TrainingError,
            kept="its last checkpoint is kept, run again to go on",
        ) from self._error

    def _train(self) -> None:
        try:
            self._group.train(self._job, log_dir=self._log_dir)
        except (WorkersFailedError, RayError, DistillError) as error:
            # Pages of tracebacks: for the log. `raise_failure` says it in a line.
            logger.info("the worker group failed: %s", error)
            self._error = error
        finally:
            self._ended.set()


def _all(references: Sequence[ray.ObjectRef]) -> list[Any]:
    """What all workers answer; does not wait for all once one of them has failed.

    Raises:
        WorkersFailedError: with what went wrong in each that failed by then.
    """
    waiting = list(references)
    while waiting:
        done, waiting = ray.wait(waiting)
        if any(_failure(each) is not None for each in done):
            if waiting:
                ray.wait(waiting, num_returns=len(waiting), timeout=LAST_WORDS_S)
            ended, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
            failures = ((references.index(each), _failure(each)) for each in ended)
            raise WorkersFailedError({rank: error for rank, error in sorted(failures) if error is not None})
    answers: list[Any] = ray.get(list(references))
    return answers


def _failure(reference: ray.ObjectRef) -> RayError | None:
    """The error of an answer that is there."""
    try:
        ray.get(reference)
    except RayError as error:
        return error
    return None


def _planned(job: StageJob, *, accelerator: Device) -> MemoryFit | None:
    """What a worker of this job should have needed; None where nobody plans it, or its model cannot tell any more."""
    if not isinstance(job.stage, StageConfig):
        # Students of tasks are small, and no plan is made for them.
        return None
    try:
        shape = PlannedShape(job.start, read_architecture(job.model_dir).shape, assumed=False)
    except ModelError:
        return None
    fit = training_memory(shape, label="training worker", settings=job.settings, stage=job.stage)
    return worker_on_host(fit, settings=job.settings) if accelerator == "cpu" else fit
