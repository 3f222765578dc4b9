"""Resuming from a checkpoint, with as many processes as wrote it or with another number of them.

With the same number the training continues bit for bit. Under ZeRO the state of the optimiser is cut into one share a
process; for another number of processes the shares are joined first, and sums over ranks then round differently, so the
result is close to that of an uninterrupted training, not equal to it.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from student_train.files import new_staging
from student_train.training.checkpoint import Checkpoints, CheckpointState
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup

if TYPE_CHECKING:
    from student_train.training.deepspeed_engine import DeepSpeedEngine

logger = logging.getLogger(__name__)


def restore(worker: StageWorker, *, path: Path, state: CheckpointState, checkpoints: Checkpoints) -> None:
    """Give the engine the weights and moments, and this process the random state, of the verified checkpoint `path`.

    Raises:
        ConfigError: the checkpoint was written under another ZeRO stage.
    """
    engine, group, zero_stage = worker.engine, worker.group, worker.job.settings.zero_stage
    if state.zero_stage != zero_stage:
        raise ConfigError(
            f"checkpoint {path.name} was written with zero_stage={state.zero_stage}, this run has "
            f"zero_stage={zero_stage}: set zero_stage: {state.zero_stage}, or remove {path.parent} to start again"
        )
    logger.info("resuming from %s", path)
    if state.world_size == group.world_size:
        engine.load(path)
        checkpoints.restore_random(path)
        return
    logger.warning(
        "%s was written by %d workers, this worker group has %d: the result will be close to that of an "
        "uninterrupted training, but not equal bit for bit",
        path,
        state.world_size,
        group.world_size,
    )
    if zero_stage == 0:
        # Every process holds everything, so it does not matter how many there are.
        engine.load(path)
    else:
        _load_joined(engine, path=path, group=group)


def _load_joined(engine: DeepSpeedEngine, *, path: Path, group: WorkerGroup) -> None:
    """Join the shares in a directory beside the checkpoint, which stays as it is, and load the result."""
    from student_train.training.deepspeed_engine import join_shards

    joined: Path | None = None
    if group.leads:
        joined = new_staging(path)
        join_shards(path, joined)
    name = group.from_leader(None if joined is None else str(joined))
    assert name is not None
    engine.load_joined(Path(name))
    group.barrier()
    if group.leads:
        shutil.rmtree(name, ignore_errors=True)
