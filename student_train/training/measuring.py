"""The held-out split of a stage, measured under the present weights; and which metrics which rows can give."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from student_train.feed.steps import StepBatch
from student_train.losses.metrics import (
    ALIGNED_METRICS,
    DRAWN_METRICS,
    METRICS,
    POLICY_METRICS,
    SCORED_METRICS,
    TEXT_METRICS,
    means,
)
from student_train.training.learner import Step
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


def measure(worker: StageWorker, steps: Iterable[Step]) -> dict[str, float] | None:
    """The means over held-out steps by their tracking names; None when a request to stop came first."""
    group = worker.group
    sums = torch.zeros(len(METRICS), dtype=torch.float64, device=group.device)
    known: dict[str, int] = {}
    for step in steps:
        if worker.stop.asked():
            return None
        sums += worker.engine.evaluate(step.batches)
        known = {name: places + known.get(name, 0) for name, places in step.known.items()}
    return means("dev", group.total(sums).tolist(), known=known)


def known_metrics(batch: StepBatch, *, group: WorkerGroup) -> tuple[str, ...]:
    """The metrics that mean something for such rows. Asked on every process, as one alone may have no rows."""
    if any(micro.aligned is not None for micro in batch.batches):
        return ALIGNED_METRICS
    targets = [micro.targets for micro in batch.batches if micro.targets is not None]
    if not targets:
        return TEXT_METRICS
    if group.any(any(target.counts is not None for target in targets)):
        return DRAWN_METRICS
    return SCORED_METRICS if all(micro.policy is None for micro in batch.batches) else POLICY_METRICS
