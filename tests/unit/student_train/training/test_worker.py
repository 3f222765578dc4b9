"""What a process has while a stage is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_jobs import make_job

from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


class Engine:
    """Gathers what it is asked for."""

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in model.named_parameters()}


def test_the_weights_bear_the_names_of_the_model_and_not_of_what_is_around_it(tmp_path: Path) -> None:
    group = WorkerGroup(0, 1, torch.device("cpu"))
    model, engine = nn.Linear(2, 1), Engine()
    untyped: Any = engine
    stop = StopRequest(lambda: False, group=group)
    worker = StageWorker(job=make_job(tmp_path), group=group, engine=untyped, model=model, stop=stop)
    weights = worker.whole_weights()
    assert weights is not None
    assert weights.keys() == {"weight", "bias"}
