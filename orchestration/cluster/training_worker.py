"""A process of a worker group: it takes its seat among the others once, then trains stage after stage."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import ray

from configs.interfaces import collective_environment
from configs.places import CURVES
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.curves import CurveWriter
from orchestration.outputs.redirect import redirect_output
from student_train.job import StageJob, StepMetrics
from student_train.training.between_stages import ProcessSettings, free_memory
from student_train.training.stages import train_stage
from student_train.worker_group import join_group, meet

START_TIMEOUT_S = 1800
"""How long the workers wait for each other, when they meet and in every collective."""

PLACED = "PLACED"
"""A file in the directory of a stage: the workers have their places."""

RESULT = "result.json"
"""A file in the directory of a stage: the fields of its `TrainResult`."""

STOP = "STOP"
"""A file in the directory of a stage: a checkpoint is to be written, and the stage to be left."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cluster has put a worker: its node, and the ids of its GPUs there."""

    node: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's number in its group and on its node, and the ids of the GPUs that all workers of the node see.

    The one with the local number n uses the n-th of them.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node_rank: int
    gpus: tuple[str, ...]

    def environment(self, address: str) -> dict[str, str]:
        """The variables that torch and DeepSpeed look for in a process of a group."""
        variables = {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "NODE_RANK": str(self.node_rank),
            # Nobody listens there: DeepSpeed looks for an MPI launcher where one of these is missing.
            "MASTER_ADDR": address,
            "MASTER_PORT": "0",
        }
        # With all of them in sight, those of one node can write into each other's memory.
        return variables | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})


def seats(places: Sequence[Place]) -> list[Seat]:
    """The seat of each worker. Those of a node have numbers that follow each other, in the order of their GPUs."""
    nodes = list(dict.fromkeys(place.node for place in places))
    order = sorted(range(len(places)), key=lambda at: (nodes.index(places[at].node), places[at].gpus, at))
    found: dict[int, Seat] = {}
    for rank, at in enumerate(order):
        here = [each for each in order if places[each].node == places[at].node]
        found[at] = Seat(
            rank=rank,
            size=len(places),
            local_rank=here.index(at),
            local_size=len(here),
            node_rank=nodes.index(places[at].node),
            gpus=tuple(sorted({gpu for each in here for gpu in places[each].gpus})),
        )
    return [found[at] for at in range(len(places))]


class TrainingWorker:
    """One process of a worker group. What it prints while it trains goes to a log of each stage."""

    def __init__(self) -> None:
        self._settings: ProcessSettings | None = None
        self._rank = 0

    def place(self) -> Place:
        """Where it is; also the sign that it lives."""
        context = ray.get_runtime_context()
        return Place(context.get_node_id(), tuple(context.get_accelerator_ids().get("GPU", ())))

    def meet(self, seat: Seat, *, store: Path, backend: str) -> None:
        """Make the process group with the others, over the cluster's own interface, in a directory that all see."""
        address = ray.util.get_node_ip_address()
        os.environ.update(collective_environment(address) | seat.environment(address))
        self._rank = seat.rank
        meet(store, rank=seat.rank, size=seat.size, backend=backend, timeout=timedelta(seconds=START_TIMEOUT_S))

    def train(self, job: StageJob, *, log_dir: Path) -> None:
        """Train a stage, together with the others; the leader writes its result.

        Raises:
            DistillError: see `train_stage`.
        """
        # What the stage before has printed belongs to its own log.
        sys.stdout.flush()
        sys.stderr.flush()
        redirect_output(log_dir / f"{job.work_dir.name}-rank{self._rank}.log")
        if self._settings is None:
            join_group(job.accelerator)
            # Part of the process from now on: what it sets while it is imported is not a stage's.
            import student_train.training.deepspeed_engine  # noqa: F401

            self._settings = ProcessSettings.now()
        settings = self._settings
        _in_a_new_thread(lambda: _train(job, leads=self._rank == 0, settings=settings))
        free_memory()


def _train(job: StageJob, *, leads: bool, settings: ProcessSettings) -> None:
    settings.restore()
    if leads:
        # No worker begins before the cluster has placed them all.
        (job.work_dir / PLACED).touch()
    result = train_stage(
        job,
        report=CurveWriter(job.work_dir / CURVES) if leads else _ignore,
        should_stop=(job.work_dir / STOP).exists,
    )
    if leads:
        write_json(job.work_dir / RESULT, asdict(result) | {"output_dir": str(result.output_dir)})


def _ignore(_: StepMetrics) -> None:
    """Metrics are the same on every rank; the leader writes them."""


def _in_a_new_thread(work: Callable[[], None]) -> None:
    """Do some work in a thread that ends with it.

    The main thread stays the one in which the cluster's signals arrive, and ends the process whatever the other does.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
            outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    outcome.result()
