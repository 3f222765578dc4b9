"""What one process reads to learn from, and what it reads to measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_jobs import IDENTITY, make_job, variant

from cache.store import TeacherCache
from cache.views import CacheView
from student_train.job import TrainJob
from student_train.training.feeds import SequenceFeeds
from student_train.worker_group import WorkerGroup


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


def feeds(job: TrainJob) -> SequenceFeeds:
    group = WorkerGroup(0, 2, torch.device("cpu"))
    return SequenceFeeds(job=job, group=group, cache=TeacherCache.open(job.cache_root, IDENTITY), packs=True)


@pytest.mark.parametrize(("objective", "learns_beliefs"), [("kd", True), ("seqkd", False)])
def test_beliefs_are_measured_whatever_is_learned(
    job: TrainJob, objective: str, learns_beliefs: bool, tmp_path: Path
) -> None:
    ours = feeds(variant(job, tmp_path, stage={"objective": objective}))
    view = CacheView.load(job.train_view)
    assert ours.training_feed(view).with_targets is learns_beliefs
    assert ours.held_out_feed(view).with_targets
    assert ours.training_feed(view).packs


def test_a_global_batch_without_a_gradient_is_about_one_micro_batch_a_process(job: TrainJob) -> None:
    view = CacheView.load(job.train_view)
    batches = feeds(job).forward_batches(view)
    assert np.concatenate(batches).tolist() == list(range(len(view)))
    sizes = [int(np.asarray(view.lengths)[rows].sum()) for rows in batches]
    assert max(sizes) < 2 * 40 + int(np.asarray(view.lengths).max())
    assert len(sizes) < len(view)
