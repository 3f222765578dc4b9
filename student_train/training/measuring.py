"""The held-out split of a stage, measured under the present weights; and which metrics which rows can give."""

from __future__ import annotations

import torch

from cache.views import CacheView
from student_train.feed.steps import StepBatch
from student_train.losses.metrics import DRAWN_METRICS, METRICS, POLICY_METRICS, SCORED_METRICS, TEXT_METRICS, means
from student_train.training.selection import check_measured
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


def measure(worker: StageWorker, view: CacheView) -> dict[str, float] | None:
    """The means over a held-out view by their tracking names; None when a request to stop came first.

    Raises:
        ConfigError: the stage selects by a metric that these rows cannot give.
    """
    group = worker.group
    sums, tokens = torch.zeros(len(METRICS), dtype=torch.float64, device=group.device), 0
    names: tuple[str, ...] = SCORED_METRICS
    for batch in worker.held_out_feed(view).steps(worker.forward_batches(view)):
        if worker.stop.asked():
            return None
        sums += worker.engine.evaluate(batch.batches)
        tokens += batch.response_tokens
        names = known_metrics(batch, group=group)
    values = means("dev", group.total(sums).tolist(), names=names, tokens=tokens)
    check_measured(worker.job.stage, values=values, dev=view)
    return values


def known_metrics(batch: StepBatch, *, group: WorkerGroup) -> tuple[str, ...]:
    """The metrics that mean something for such rows. Asked on every process, as one alone may have no rows."""
    targets = [micro.targets for micro in batch.batches if micro.targets is not None]
    if not targets:
        return TEXT_METRICS
    if group.any(any(target.counts is not None for target in targets)):
        return DRAWN_METRICS
    return SCORED_METRICS if all(micro.policy is None for micro in batch.batches) else POLICY_METRICS
