"""What one process reads to learn from, and what it reads to measure on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_jobs import IDENTITY, make_job, variant

from cache.store import TeacherCache
from cache.views import CacheView
from student_train.job import TrainJob
from student_train.models.decoder import Decoder
from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


def worker(job: TrainJob) -> StageWorker:
    group = WorkerGroup(0, 2, torch.device("cpu"))
    engine: Any = object()
    return StageWorker(
        job=job,
        group=group,
        engine=engine,
        decoder=Decoder(None, nn.Identity(), nn.Parameter(torch.zeros(2, 2)), None),
        cache=TeacherCache.open(job.cache_root, IDENTITY),
        stop=StopRequest(lambda: False, group=group),
        packs=True,
    )


@pytest.mark.parametrize(("objective", "learns_beliefs"), [("kd", True), ("seqkd", False)])
def test_beliefs_are_measured_whatever_is_learned(
    job: TrainJob, objective: str, learns_beliefs: bool, tmp_path: Path
) -> None:
    ours = worker(variant(job, tmp_path, stage={"objective": objective}))
    view = CacheView.load(job.train_view)
    assert ours.training_feed(view).with_targets is learns_beliefs
    assert ours.held_out_feed(view).with_targets
    assert ours.training_feed(view).packs


def test_a_global_batch_without_a_gradient_is_about_one_micro_batch_a_process(job: TrainJob) -> None:
    view = CacheView.load(job.train_view)
    batches = worker(job).forward_batches(view)
    assert np.concatenate(batches).tolist() == list(range(len(view)))
    sizes = [int(np.asarray(view.lengths)[rows].sum()) for rows in batches]
    assert max(sizes) < 2 * 40 + int(np.asarray(view.lengths).max())
    assert len(sizes) < len(view)
