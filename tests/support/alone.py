"""A process that trains a stage alone: a group of one, and a worker that needs no engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from student_train.job import StageJob
from student_train.training.learner import Learner
from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


class Alone(WorkerGroup):
    """A worker group of one that needs no process group."""

    def total(self, values: Tensor) -> Tensor:
        return values

    def from_leader(self, text: str | None) -> str | None:
        return text

    def from_all(self, text: str | None) -> list[str | None]:
        return [text]


ALONE = Alone(0, 1, torch.device("cpu"))


def lone_worker(job: StageJob, learner: Learner, *, engine: Any = None) -> StageWorker:
    """A process whose engine is asked for nothing, unless one is given: steps of a view need none."""
    stop = StopRequest(lambda: False, group=ALONE)
    return StageWorker(job=job, group=ALONE, engine=engine, model=learner.model, stop=stop)
