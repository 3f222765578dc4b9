"""What a rollout says about the student that wrote it, and what its tokens weigh when it is learned from.

All of it follows from the rollout, from what the weights that wrote it gave each token (`behaviour`, in nats, one after
another over the rows of its view), and from the teacher's one pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float32

from cache.protocols import RecordReader
from configs.rollouts import PolicyConfig, RolloutConfig
from student_train.handoff.rollouts import Rollout
from student_train.losses.advantages import PolicyTable, policy_terms


def rollout_health(rollout: Rollout, behaviour: Float32[np.ndarray, " N"]) -> dict[str, float]:
    """How the student writes: its length and entropy, and how far the sampling engine's arithmetic is from ours.

    Where the student drew a token, -log q of it is an unbiased estimate of its entropy there.
    """
    lengths = np.asarray(rollout.view.lengths) - np.asarray(rollout.view.prompt_len)
    own = ~rollout.drawn_by_teacher
    gaps = np.abs(rollout.engine_logprobs - behaviour)[own & np.isfinite(rollout.engine_logprobs)]
    # The teacher's own sequences, where there are any beside the student's, say nothing about the student.
    by_student = np.add.reduceat(own, np.cumsum(lengths) - lengths) > 0
    written = lengths[rollout.samples[by_student[rollout.samples]]]
    health = {
        "rollout/response_tokens": float(written.mean()) if len(written) else 0.0,
        "rollout/sequences": float(len(rollout.samples)),
        "rollout/staleness": float(rollout.number - rollout.version),
    }
    if own.any():
        health["rollout/entropy"] = float(-behaviour[own].mean(dtype=np.float64))
    if len(gaps):
        health["rollout/engine_gap"] = float(gaps.mean(dtype=np.float64))
    return health


def collapse_of(metrics: Mapping[str, float], *, config: RolloutConfig) -> tuple[str, float] | None:
    """The first metric of a rollout below its least value, with that value; None where the student still writes."""
    limits = {"rollout/response_tokens": config.least_tokens, "rollout/entropy": config.least_entropy}
    return next(((name, least) for name, least in limits.items() if metrics.get(name, least) < least), None)


def rollout_terms(
    rollout: Rollout,
    behaviour: Float32[np.ndarray, " N"],
    *,
    cache: RecordReader,
    alpha: float,
    policy: PolicyConfig,
) -> PolicyTable:
    """Advantages and weights of a whole rollout, whose teacher's share is `alpha`; one row for each row of its view."""
    view = rollout.view
    (told,) = cache.iter_blocks(view, [np.arange(len(view))])
    scores = [record.target_logprobs for record in told if record.target_logprobs is not None]
    lengths = np.asarray(view.lengths) - np.asarray(view.prompt_len)
    mask = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
    teacher, student = (np.zeros(mask.shape) for _ in range(2))
    teacher[mask], student[mask] = np.concatenate(scores), behaviour
    return policy_terms(
        torch.from_numpy(teacher),
        torch.from_numpy(student),
        torch.from_numpy(mask),
        alpha=alpha,
        policy=policy,
    )
