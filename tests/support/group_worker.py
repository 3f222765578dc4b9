"""Real groups for tests: `python group_worker.py <file of calls>` runs functions of this module in several processes.

The processes have the usual RANK and friends set and find each other under gloo. What they return is pickled beside the
file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from student_builders import VOCAB
from torch import Tensor

from cache.disk.failpoints import VARIABLE
from cache.records import TeacherRecord
from configs.errors import DistillError
from configs.places import CURVES
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from orchestration.outputs.curves import CurveWriter
from student_train.feed import steps as feed
from student_train.feed.microbatch import collate
from student_train.job import StageJob, StepMetrics, TrainResult
from student_train.models.adapters import attach_adapters
from student_train.models.decoder import TORCH_DTYPES, Decoder, StudentModule, load_decoder
from student_train.training import shares
from student_train.training.stages import train_stage
from student_train.worker_group import join_group

ROOT = Path(__file__).resolve().parents[2]


Plan = list[list[list[list[TeacherRecord]]]]
"""For each step, for each rank, its micro-batches."""

Case = tuple[Path, StageConfig, TrainingSettings, Plan]
"""A model and how it is trained."""

Results = list[tuple[list[Any], dict[str, Tensor] | None]]
"""For each case the outcome of every step and, on the leader, the weights."""


def build(model_dir: Path, *, stage: StageConfig, settings: TrainingSettings | None = None) -> Decoder:
    """The model of a stage; its adapters start alike wherever it is built."""
    recompute = settings is not None and settings.gradient_checkpointing
    decoder = load_decoder(model_dir, dtype=TORCH_DTYPES[stage.dtype], gradient_checkpointing=recompute)
    if stage.lora is not None:
        torch.manual_seed(0)
        attach_adapters(decoder.model, stage.lora)
    return decoder


def engine_steps(cases: list[Case]) -> Results:
    """Optimiser steps straight on the engine."""
    return [_engine_steps(*case) for case in cases]


def _engine_steps(
    model_dir: Path, stage: StageConfig, settings: TrainingSettings, plan: Plan
) -> tuple[list[Any], dict[str, Tensor] | None]:
    group = join_group("cpu")
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    decoder = build(model_dir, stage=stage, settings=settings)
    engine = DeepSpeedEngine(
        StudentModule(decoder, stage=stage, vocab=VOCAB), stage=stage, settings=settings, group=group
    )
    outcomes = []
    for step in plan:
        rounds = max(len(batches) for batches in step)
        mine = [collate(rows, with_targets=True) for rows in step[group.rank]]
        mine += [collate([], with_targets=True)] * (rounds - len(mine))
        tokens = sum(row.response_len for batches in step for rows in batches for row in rows)
        rate = stage.learning_rate
        outcomes.append(engine.step(mine, places=tokens, learning_rate=rate, stop=lambda: False))
    weights = engine.whole_weights(decoder.model)
    engine.close()
    return outcomes, weights


@dataclass(frozen=True, slots=True)
class Ask:
    """When one rank alone asks to stop: once step `after` was reported and it was asked `later` times without saying so.

    With `signal` it sends itself a SIGTERM instead. The others have to follow it.
    """

    after: int
    later: int = 0
    signal: bool = False
    rank: int = 1


@dataclass(frozen=True, slots=True)
class Death:
    """When some ranks die of SIGKILL: `delay_s` after step `after` or a later one is reported, or at the `failpoint` that comes next."""

    after: int
    ranks: tuple[int, ...] = (0, 1)
    failpoint: str | None = None
    delay_s: float = 0.0

    def strike(self) -> None:
        if self.failpoint is not None:
            os.environ[VARIABLE] = self.failpoint
        elif self.delay_s > 0:
            threading.Timer(self.delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Disk:
    """How the disk of some ranks takes checkpoints: this slowly, and from step `full_at` on not at all."""

    ranks: tuple[int, ...] = (0, 1)
    seconds_a_file: float = 0.0
    full_at: int | None = None

    @contextlib.contextmanager
    def under(self, reported: list[StepMetrics]) -> Iterator[None]:
        sync = shares.sync_file

        def slow(path: Path) -> None:
            time.sleep(self.seconds_a_file)
            if self.full_at is not None and reported and reported[-1].step >= self.full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(path)

        shares.sync_file = slow if int(os.environ["RANK"]) in self.ranks else sync
        try:
            yield
        finally:
            shares.sync_file = sync


@dataclass(frozen=True, slots=True)
class Trained:
    """What one process saw of a training: how it ended, or the error, every report, and the lines of its log."""

    ended: TrainResult | str
    reported: list[StepMetrics]
    log: list[str]

    @property
    def result(self) -> TrainResult:
        assert isinstance(self.ended, TrainResult), self.ended
        return self.ended

    def values(self, name: str) -> list[float]:
        """One metric at every step that has it."""
        return [metrics.values[name] for metrics in self.reported if name in metrics.values]


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        self.lines.append(entry.getMessage())


def train(
    job: StageJob,
    *,
    ask: Ask | None = None,
    death: Death | None = None,
    poison: Poison | None = None,
    look_every: int | None = None,
    disk: Disk | None = None,
) -> Trained:
    """Train a stage. The leader writes its curve into the working directory, as it does under Ray."""
    join_group("cpu")
    from student_train.training import deepspeed_engine

    rank = int(os.environ["RANK"])
    reported: list[StepMetrics] = []
    asked: list[int] = []
    curve = CurveWriter(job.work_dir / CURVES)

    def report(metrics: StepMetrics) -> None:
        reported.append(metrics)
        if rank == 0:
            curve(metrics)
        if death is not None and metrics.step >= death.after and rank in death.ranks:
            death.strike()

    def should_stop() -> bool:
        if ask is None or rank != ask.rank or not reported or reported[-1].step != ask.after:
            return False
        asked.append(1)
        if ask.signal and len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return not ask.signal and len(asked) > ask.later

    lines = _Lines()
    logging.getLogger("student_train").addHandler(lines)
    whole, usual = feed.Feed.steps, deepspeed_engine.STOP_LOOK_EVERY
    if poison is not None:
        feed.Feed.steps = poisoned(poison)
    deepspeed_engine.STOP_LOOK_EVERY = look_every or usual
    try:
        with (disk or Disk(ranks=())).under(reported):
            return Trained(train_stage(job, report=report, should_stop=should_stop), reported, lines.lines)
    except (DistillError, OSError) as error:
        return Trained(f"{type(error).__name__}: {error}", reported, lines.lines)
    finally:
        feed.Feed.steps, deepspeed_engine.STOP_LOOK_EVERY = whole, usual
        logging.getLogger("student_train").removeHandler(lines)


Poison = tuple[str, int, int]
"""The data set, the rank that reads it, and the first batch that holds a number that is none."""


def poisoned(poison: Poison) -> Callable[..., Iterator[feed.StepBatch]]:
    """`Feed.steps` with one log-probability of the teacher broken."""
    dataset, rank, first = poison
    whole = feed.Feed.steps

    def steps(self: feed.Feed, batches: list[Any]) -> Iterator[feed.StepBatch]:
        for number, batch in enumerate(whole(self, batches)):
            if self.view.dataset == dataset and self.group.rank == rank and number >= first:
                targets = batch.batches[0].targets
                assert targets is not None and targets.logprobs is not None
                targets.logprobs[0, 0] = math.nan
            yield batch

    return steps


Jobs = list[tuple[StageJob, dict[str, Any]]]
"""Trainings, each with what else `train` takes."""


def train_all(jobs: Jobs) -> list[Trained]:
    """Several calls of `train` one after the other in the same process: starting one costs more than they do."""
    return [train(job, **extra) for job, extra in jobs]


@dataclass(frozen=True, slots=True)
class Lost:
    """A process that returned nothing; `code` is minus the signal that ended it, or its exit status."""

    code: int


Call = tuple[str, dict[str, Any], int]
"""A function of this module, its arguments, and how many processes run it together."""


def run_groups(calls: list[Call], *, folder: Path) -> list[list[Any]]:
    """Run one worker group after the other; for each what every rank returned, or how it was lost."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "calls.pickle"
    file.write_bytes(pickle.dumps(calls))
    host = subprocess.Popen(
        [sys.executable, __file__, str(file)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = host.communicate(timeout=280)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(host.pid, signal.SIGKILL)
    assert host.returncode == 0, output
    # Where a test expects no loss, this is what explains it.
    sys.stdout.write(output)
    results: list[list[Any]] = pickle.loads(file.with_suffix(".results").read_bytes())
    return results


def run_group(function: str, args: dict[str, Any], *, folder: Path, world_size: int) -> list[Any]:
    """Run a function of this module in `world_size` processes; what each returned."""
    (returned,) = run_groups([(function, args, world_size)], folder=folder)
    assert not any(isinstance(one, Lost) for one in returned), returned
    return returned


def main() -> None:
    """Import everything once, then fork every worker group: starting a process costs ten times what a worker group does."""
    torch.set_num_threads(1)
    # DeepSpeed looks for it when it makes an optimiser, and it takes half of torch with it.
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

    import student_train.training.deepspeed_engine  # noqa: F401

    file = Path(sys.argv[1])
    results = [_group(call, folder=file.parent) for call in pickle.loads(file.read_bytes())]
    file.with_suffix(".results").write_bytes(pickle.dumps(results))


def _group(call: Call, *, folder: Path) -> list[Any]:
    function, args, world_size = call
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    files = [folder / f"rank-{rank}.pickle" for rank in range(world_size)]
    children = []
    for rank, result in enumerate(files):
        result.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            _be_a_rank(function, args, result=result)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return [Lost(code) if code else pickle.loads(file.read_bytes()) for code, file in zip(codes, files, strict=True)]


def _be_a_rank(function: str, args: dict[str, Any], *, result: Path) -> NoReturn:
    code = 1
    try:
        result.write_bytes(pickle.dumps(globals()[function](**args)))
        if dist.is_initialized():
            dist.destroy_process_group()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # A thread of gloo that wants the interpreter lock while Python shuts down ends the process with SIGABRT. It
        # happens once in some hundred runs, after the work is done, so these processes end without a shutdown, as
        # Ray's workers do.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    # Under its own name, so that what it returns can be unpickled by who imported it.
    import group_worker

    group_worker.main()
