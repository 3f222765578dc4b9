"""Train one stage in a group of Ray Train workers, and follow it from the driver."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from configs import ModelError, TrainingError
from configs.architecture import read_architecture
from configs.interfaces import collective_environment
from configs.models import Device
from configs.places import CURVES
from configs.regular_files import read_json
from orchestration.cluster.deaths import lost
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.curves import CurveReader, CurveWriter
from orchestration.outputs.redirect import redirect_output
from orchestration.plan.host_memory import worker_on_host
from orchestration.plan.memory import MemoryFit, training_memory
from student_train.job import StepMetrics, TrainJob
from student_train.training.trainer import train_stage
from student_train.worker_group import meet

logger = logging.getLogger(__name__)

POLL_S = 0.5
START_TIMEOUT_S = 1800
STOP_GRACE_S = 60.0
"""How long a stopped worker group may take to write its checkpoint."""

PLACED = "PLACED"
"""A file in the directory of a stage: the workers have their places."""

MEETING = "meeting"
"""A directory of a stage in which its workers find each other."""

WORKER_ENVIRONMENT = {
    # The collectives have a time limit of their own (`torch_config.timeout_s`); this one covers Ray's barriers.
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(START_TIMEOUT_S),
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def train_in_group(
    job: TrainJob,
    *,
    log_dir: Path,
    accelerator: Device,
    on_step: Callable[[StepMetrics], None],
    meanwhile: Callable[[], None],
    gpu_share: float = 1.0,
) -> dict[str, object]:
    """Train a stage; returns the fields of its `TrainResult`.

    `meanwhile` is called again and again while the worker group works, to do what it needs from outside. On an
    interrupt, or an error of `meanwhile`, the worker group is asked to write a checkpoint before the error is raised.
    Workers that take less than a whole GPU leave the rest to what `meanwhile` starts, which then has to wait until
    all of them have their places.

    Raises:
        TrainingError: a worker failed; the checkpoint of the last save remains.
    """
    job.work_dir.mkdir(parents=True, exist_ok=True)
    stop_file, result_file, placed_file = (job.work_dir / name for name in ("STOP", "result.json", PLACED))
    for file in (stop_file, result_file, placed_file):
        file.unlink(missing_ok=True)
    # Of a worker group that was killed: torch aborts a process that finds its store gone, should one still be on
    # its way out.
    shutil.rmtree(job.work_dir / MEETING, ignore_errors=True)
    group = _WorkerGroup(job, log_dir=log_dir, accelerator=accelerator, gpu_share=gpu_share)
    curve = CurveReader(job.work_dir / CURVES)
    try:
        while group.running(POLL_S):
            for metrics in curve.new():
                on_step(metrics)
            if gpu_share == 1.0 or placed_file.exists():
                meanwhile()
    except BaseException:
        stop_file.touch()
        group.wait(STOP_GRACE_S)
        raise
    group.raise_failure()
    for metrics in curve.new():
        on_step(metrics)
    if not result_file.exists():
        raise TrainingError(f"the training ended without a result; see {log_dir}")
    result = read_json(result_file)
    if not isinstance(result, dict):
        raise TrainingError(f"{result_file}: is not the result of a training; see {log_dir}")
    return result


class _WorkerGroup:
    """`TorchTrainer.fit` in a thread, so that the driver stays free to follow the curve and to be interrupted."""

    def __init__(self, job: TrainJob, *, log_dir: Path, accelerator: Device, gpu_share: float) -> None:
        self._job, self._log_dir, self._accelerator = job, log_dir, accelerator
        self._error: Exception | None = None
        self._trainer = _trainer(job, log_dir=log_dir, accelerator=accelerator, gpu_share=gpu_share)
        # Not the thread's own `join`: an interrupt there makes Python 3.11 take the thread for ended.
        self._ended = threading.Event()
        threading.Thread(target=self._fit, daemon=True).start()

    def running(self, seconds: float) -> bool:
        """Wait up to `seconds`, then say whether the worker group still works."""
        return not self._ended.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Give the worker group time to end by itself."""
        deadline = time.monotonic() + seconds
        while self.running(POLL_S) and time.monotonic() < deadline:
            pass

    def raise_failure(self) -> None:
        """Raise what ended the worker group, if anything did."""
        if self._error is None:
            return
        raise lost(
            self._error,
            what="a training worker",
            fit=_planned(self._job, accelerator=self._accelerator),
            log=self._log_dir,
            kind=TrainingError,
            kept="its last checkpoint is kept, run again to go on",
        ) from self._error

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except (TrainingFailedError, ray.exceptions.RayError) as error:
            # Pages of tracebacks: for the log. `raise_failure` says it in a line.
            logger.info("the worker group ended: %s", error)
            self._error = error
        finally:
            self._ended.set()


def _trainer(job: TrainJob, *, log_dir: Path, accelerator: Device, gpu_share: float) -> TorchTrainer:
    settings = job.settings
    gpu = accelerator == "gpu"
    resources = {"CPU": settings.cpus_per_worker} | ({"GPU": gpu_share} if gpu else {})
    threads = max(int(settings.cpus_per_worker), 1)
    return TorchTrainer(
        _work,
        train_loop_config={"job": job, "log_dir": log_dir},
        torch_config=WorkerGroupConfig(
            backend="nccl" if gpu else "gloo", timeout_s=START_TIMEOUT_S, meeting=job.work_dir / MEETING
        ),
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=job.work_dir.name,
            storage_path=str(job.work_dir / "ray"),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}},
        ),
    )


@dataclass
class WorkerGroupConfig(TorchConfig):  # type: ignore[misc]
    """How the workers find each other: in a directory that all of them see, and over the cluster's own interface.

    By default Ray lets torch listen on every interface of the first worker's machine.
    """

    meeting: Path = Path(MEETING)

    @property
    def backend_cls(self) -> type[Any]:
        """What sets the process group up and ends it."""
        return _WorkerGroupBackend


class _WorkerGroupBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray's own, except for the way in which the workers meet."""

    def on_start(self, worker_group: Any, backend_config: WorkerGroupConfig) -> None:
        """Make the process group; called in the process that controls the workers."""
        backend_config.meeting.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A store that was used cannot be used again, and Ray may start workers twice.
        store = backend_config.meeting / secrets.token_hex(8)
        assert backend_config.backend is not None
        worker_group.execute(_meet, store=store, backend=backend_config.backend, timeout_s=backend_config.timeout_s)


def _meet(*, store: Path, backend: str, timeout_s: int) -> None:
    """Make the process group, in each worker."""
    context, address = get_context(), ray.util.get_node_ip_address()
    os.environ.update(collective_environment(address))
    os.environ.update(
        {
            "RANK": str(context.get_world_rank()),
            "WORLD_SIZE": str(context.get_world_size()),
            "LOCAL_RANK": str(context.get_local_rank()),
            "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
            "NODE_RANK": str(context.get_node_rank()),
            # Nobody listens there: DeepSpeed looks for an MPI launcher where one of these is missing.
            "MASTER_ADDR": address,
            "MASTER_PORT": "0",
        }
    )
    meet(
        store,
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        backend=backend,
        timeout=timedelta(seconds=timeout_s),
    )


def _work(config: dict[str, object]) -> None:
    """The training function of each worker."""
    job, log_dir = config["job"], config["log_dir"]
    assert isinstance(job, TrainJob) and isinstance(log_dir, Path)
    rank = get_context().get_world_rank()
    redirect_output(log_dir / f"{job.work_dir.name}-rank{rank}.log")
    leads = rank == 0
    if leads:
        # No worker begins before Ray has placed them all.
        (job.work_dir / PLACED).touch()
    result = train_stage(
        job,
        report=CurveWriter(job.work_dir / CURVES) if leads else _ignore,
        should_stop=(job.work_dir / "STOP").exists,
    )
    if leads:
        write_json(job.work_dir / "result.json", asdict(result) | {"output_dir": str(result.output_dir)})


def _ignore(_: StepMetrics) -> None:
    """Metrics are the same on every rank; the leader writes them."""


def _planned(job: TrainJob, *, accelerator: Device) -> MemoryFit | None:
    """What a worker of this job should have needed; None where its model cannot tell any more."""
    try:
        shape = PlannedShape(job.start, read_architecture(job.model_dir).shape, assumed=False)
    except ModelError:
        return None
    fit = training_memory(shape, label="training worker", settings=job.settings, stage=job.stage)
    return worker_on_host(fit, settings=job.settings) if accelerator == "cpu" else fit
