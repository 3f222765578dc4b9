"""Held-out means over several steps, and which metrics mean something for which rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from student_builders import VOCAB, record
from torch import Tensor, nn
from training_jobs import make_job

from cache.records import TeacherRecord
from cache.sampling import sample_rows
from student_train.feed.microbatch import collate
from student_train.feed.steps import StepBatch
from student_train.job import TrainJob
from student_train.losses.advantages import PolicyTerms
from student_train.losses.metrics import DRAWN_METRICS, METRICS, POLICY_METRICS, SCORED_METRICS, TEXT_METRICS
from student_train.training.learner import Step
from student_train.training.measuring import known_metrics, measure
from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup

ROWS = [record(1), record(2)]
DRAWN = [sample_rows(record(1, k=VOCAB), draws=4, seed=0)]
TERMS = PolicyTerms(*[torch.zeros(6, dtype=torch.float64)] * 3)


class Fixed(WorkerGroup):
    """A group of which another process has draws, or none has; sums are asked for nothing else here."""

    drawn_elsewhere = False

    def total(self, values: Tensor) -> Tensor:
        return values + float(self.drawn_elsewhere)


class WithDraws(Fixed):
    """Rows of draws on another process."""

    drawn_elsewhere = True


def step(
    rows: Sequence[TeacherRecord], *, with_targets: bool = True, terms: Sequence[PolicyTerms] | None = None
) -> StepBatch:
    return StepBatch(12, 20, 20, ("aa",), (collate(rows, with_targets=with_targets, terms=terms),), (np.arange(1),))


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (step(ROWS, with_targets=False), TEXT_METRICS),
        (step(ROWS), SCORED_METRICS),
        (step(ROWS, terms=[TERMS, TERMS]), POLICY_METRICS),
        (step(DRAWN), DRAWN_METRICS),
    ],
    ids=["text", "scored", "sampled", "drawn"],
)
def test_names_follow_the_rows(batch: StepBatch, expected: tuple[str, ...]) -> None:
    assert known_metrics(batch, group=Fixed(0, 2, torch.device("cpu"))) == expected


def test_a_process_without_rows_takes_the_names_of_the_others() -> None:
    assert known_metrics(step([]), group=WithDraws(0, 2, torch.device("cpu"))) == DRAWN_METRICS


class Engine:
    """Finds the sums that a step holds in place of micro-batches."""

    def evaluate(self, batches: Sequence[Tensor]) -> Tensor:
        return batches[0]


def held_out(places: int, **sums: float) -> Step:
    found = torch.zeros(len(METRICS), dtype=torch.float64)
    for name, value in sums.items():
        found[METRICS.index(name)] = value
    return Step(
        batches=(found,), places=places, tokens=1, padding_share=0.0, known=dict.fromkeys(sums, places), rows=()
    )


def measured(job: TrainJob, *, stopped: bool) -> dict[str, float] | None:
    group, engine = Fixed(0, 1, torch.device("cpu")), Engine()
    untyped: Any = engine
    stop = StopRequest(lambda: stopped, group=group)
    worker = StageWorker(job=job, group=group, engine=untyped, model=nn.Identity(), stop=stop)
    return measure(worker, [held_out(2, loss=3.0, ce=1.0), held_out(6, loss=1.0, ce=5.0)])


def test_means_are_sums_of_all_steps_divided_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert measured(job, stopped=False) == {"dev/loss": 0.5, "dev/ce": 0.75}
    assert measured(job, stopped=True) is None
