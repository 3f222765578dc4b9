"""One process of a real gang: `python gang_worker.py <job file> <function>`, with the usual RANK and friends set.

Runs the function of this module of that name on the pickled arguments and pickles what it returns beside the job file.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from student_builders import VOCAB
from torch import Tensor

from cache.records import TeacherRecord
from configs.errors import DistillError
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.batching import collate
from student_train.checkpoint import Checkpoints, TrainerState
from student_train.gang import join_gang
from student_train.job import StepMetrics, TrainJob, TrainResult
from student_train.model import TORCH_DTYPES, StudentModule, load_decoder
from student_train.trainer import train_stage

ROOT = Path(__file__).resolve().parents[2]


Plan = list[list[list[list[TeacherRecord]]]]
"""For each step, for each rank, its micro-batches."""

Case = tuple[Path, StageConfig, TrainingSettings, Plan]
"""A model and how it is trained."""

Results = list[tuple[list[Any], dict[str, Tensor] | None]]
"""For each case the outcome of every step and, on the leader, the weights."""


def engine_steps(cases: list[Case]) -> Results:
    """Optimiser steps straight on the engine."""
    return [_engine_steps(*case) for case in cases]


def _engine_steps(
    model_dir: Path, stage: StageConfig, settings: TrainingSettings, plan: Plan
) -> tuple[list[Any], dict[str, Tensor] | None]:
    gang = join_gang("cpu")
    from student_train.deepspeed_engine import DeepSpeedEngine

    decoder = load_decoder(model_dir, dtype=TORCH_DTYPES[stage.dtype])
    engine = DeepSpeedEngine(
        StudentModule(decoder, stage=stage, vocab=VOCAB), stage=stage, settings=settings, gang=gang
    )
    outcomes = []
    for step in plan:
        rounds = max(len(batches) for batches in step)
        mine = [collate(rows, with_targets=True) for rows in step[gang.rank]]
        mine += [collate([], with_targets=True)] * (rounds - len(mine))
        tokens = sum(row.response_len for batches in step for rows in batches for row in rows)
        outcomes.append(engine.step(mine, global_tokens=tokens, learning_rate=stage.learning_rate))
    weights = engine.whole_weights(decoder.model)
    engine.close()
    return outcomes, weights


def train(job: TrainJob, *, stop_at: int | None, die_at: int | None) -> tuple[TrainResult | str, list[StepMetrics]]:
    """Train a stage; ask to stop after step `stop_at`, or die of SIGKILL when the metrics of step `die_at` come."""
    reported: list[StepMetrics] = []

    def report(metrics: StepMetrics) -> None:
        reported.append(metrics)
        if metrics.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def should_stop() -> bool:
        # One process alone asks: the others have to follow it.
        return os.environ["RANK"] == "1" and reported[-1].step == stop_at

    try:
        return train_stage(job, report=report, should_stop=should_stop), reported
    except DistillError as error:
        return f"{type(error).__name__}: {error}", reported


def train_again(jobs: list[tuple[TrainJob, int | None]]) -> list[tuple[TrainResult | str, list[StepMetrics]]]:
    """Several calls of `train` one after the other in the same process, each (job, step to stop at)."""
    return [train(job, stop_at=stop_at, die_at=None) for job, stop_at in jobs]


def checkpoint(root: Path, steps: list[int]) -> None:
    """Write checkpoints of nothing much."""
    store = Checkpoints(root, gang=join_gang("cpu"))
    for step in steps:
        store.save(trainer_state(step), write_shards=write_weights)


def trainer_state(step: int) -> TrainerState:
    """A state with something in every field."""
    return TrainerState(
        step=step,
        tokens=100 * step,
        skipped=2,
        skipped_in_a_row=1,
        world_size=2,
        view_digest="v" * 64,
        stage_digest="s" * 64,
        dev_losses=((0, 3.5), (1, 2.25)),
        pending=(StepMetrics(step, {"train/loss": 1.25, "train/tokens": 100.0}),),
    )


def write_weights(folder: Path) -> None:
    """Stand in for DeepSpeed's shards."""
    (folder / "state").mkdir()
    (folder / "state" / "weights.bin").write_bytes(bytes(range(256)) * 64)


def run_gang(
    function: str,
    args: dict[str, Any],
    *,
    folder: Path,
    world_size: int,
    env: dict[str, str] | None = None,
    dies: bool = False,
) -> list[Any]:
    """Run a function of this module in `world_size` processes; what each returned. With `dies` the leader must not end well."""
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.pickle"
    job.write_bytes(pickle.dumps(args))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    base = os.environ | {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    base |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | (env or {})
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(job), function],
            env=base | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if dies:
        assert processes[0].returncode == -signal.SIGKILL, outputs[0]
        return []
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [pickle.loads((folder / f"result-{rank}.pickle").read_bytes()) for rank in range(world_size)]


def main() -> None:
    torch.set_num_threads(1)
    job = Path(sys.argv[1])
    args = pickle.loads(job.read_bytes())
    result = globals()[sys.argv[2]](**args)
    job.with_name(f"result-{os.environ['RANK']}.pickle").write_bytes(pickle.dumps(result))
    if dist.is_initialized():
        dist.destroy_process_group()
    # A thread of gloo that wants the interpreter lock while Python shuts down ends the process with SIGABRT. It happens
    # once in some hundred runs, after the work is done, so these processes end without a shutdown, as Ray's workers do.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
