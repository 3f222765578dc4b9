"""Plain torch on one process, which worker groups are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from alone import lone_worker
from torch import Tensor

from student_train.job import GeneralJob, TrainJob
from student_train.training.deepspeed_engine import ADAM_BETAS, ADAM_EPS
from student_train.training.general import GeneralLearner
from student_train.training.schedule import learning_rate
from student_train.training.sequences import SequenceLearner

Job = TypeVar("Job", GeneralJob, TrainJob)


def learn_alone(
    job: Job, learner_of: Callable[[Job], GeneralLearner | SequenceLearner]
) -> tuple[dict[str, Tensor], list[float]]:
    """The weights after all steps of a stage, every step one batch, and the loss of each step."""
    settings = job.settings.model_copy(update={"micro_batch_tokens": 10_000})
    whole = replace(job, settings=settings)
    learner = learner_of(whole)
    module, stage, losses = learner.module.train(), job.stage, []
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learning if weight.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [weight for weight in learning if weight.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=ADAM_EPS)
    for number, step in enumerate(learner.steps(lone_worker(whole, learner), first=0)):
        assert step is not None
        (batch,) = step.batches
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(
                number, peak=stage.learning_rate, total_steps=learner.total_steps, warmup_steps=stage.warmup_steps
            )
        loss = module(batch)[0] / step.places
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learning, stage.gradient_clip)
        optimiser.step()
        losses.append(float(loss.detach()))
    return {name: weight.detach() for name, weight in learner.model.named_parameters()}, losses
