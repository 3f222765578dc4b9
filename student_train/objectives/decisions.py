"""The loss of a micro-batch of a task, and what is measured beside it, as sums over its decisions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from student_train.feed.task_batch import TaskBatch
from student_train.losses.fused import LossSums
from student_train.losses.logits import label_cross_entropy, soft_cross_entropy
from student_train.losses.metrics import METRICS

TASK_METRICS = ("loss", "ce", "accuracy", "divergence", "agreement")
"""Those of `METRICS` that decisions have: the trained loss; cross-entropy on gold; decisions that are as gold says;
KL(teacher ‖ student); decisions where student and teacher choose the same. What is not known counts 0."""


def task_sums(loss: Float[Tensor, " D"], logits: Float[Tensor, "N C"], batch: TaskBatch) -> LossSums:
    """Sums over the decisions of a batch, `loss` being the trained one; no decisions give zero with a gradient."""
    with torch.no_grad():
        found = {"loss": loss.detach()} | _measured(logits.detach().float(), batch)
        metrics = torch.zeros(len(METRICS), dtype=torch.float64, device=loss.device)
        for name, values in found.items():
            metrics[METRICS.index(name)] = values.double().sum()
    # Every process takes part in every collective: without decisions the graph must be there all the same.
    return LossSums(loss.sum() + 0.0 * logits.sum(), metrics)


def teacher_labels(batch: TaskBatch) -> Int64[Tensor, " D"]:
    """The choice that the teacher finds likeliest in every decision."""
    assert batch.teacher is not None
    believed, valid = batch.decisions(batch.teacher)
    return (believed if valid is None else believed.masked_fill(~valid, -torch.inf)).argmax(dim=1)


def _measured(logits: Float[Tensor, "N C"], batch: TaskBatch) -> dict[str, Tensor]:
    answered, valid = batch.decisions(logits)
    if not len(answered):
        return {}
    chosen = (answered if valid is None else answered.masked_fill(~valid, -torch.inf)).argmax(dim=1)
    found = {"ce": label_cross_entropy(answered, batch.gold, valid=valid), "accuracy": chosen == batch.gold}
    if batch.teacher is not None:
        believed, _ = batch.decisions(batch.teacher)
        found["divergence"] = soft_cross_entropy(answered, believed, temperature=1.0, valid=valid)
        found["agreement"] = chosen == teacher_labels(batch)
    return found
