"""One process of a worker group, with everything that it trains a stage with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from student_train.job import StageJob
from student_train.training.stopping import StopRequest
from student_train.worker_group import WorkerGroup

if TYPE_CHECKING:
    from student_train.training.deepspeed_engine import DeepSpeedEngine


@dataclass(frozen=True, slots=True, eq=False)
class StageWorker:
    """What one process has while a stage is trained, whatever it learns.

    `model` holds the weights that the engine trains. All processes of the group make every call together.
    """

    job: StageJob
    group: WorkerGroup
    engine: DeepSpeedEngine
    model: nn.Module
    stop: StopRequest

    def whole_weights(self) -> dict[str, Tensor] | None:
        """The present weights on the CPU, under the names of the trained model, on the leader; None elsewhere."""
        return self.engine.whole_weights(self.model)
