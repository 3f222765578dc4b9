"""MiniLLM: the reverse KL of whole sequences, from what the student writes (Gu et al. 2024, arXiv 2306.08543).

What the terms of the loss are: `student_train.losses.minillm`, and docs/objectives.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.objectives import Objective
from configs.rollouts import PolicyConfig
from configs.stages import StageConfig
from student_train.objectives.cards import data_learned, in_words

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.microbatch import MicroBatch
    from student_train.losses.fused import LossSums
    from student_train.losses.head import Head


def policy_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """MiniLLM where the student sampled the tokens, with the settings of the stage's `policy`.

    Held-out answers have no policy that they were sampled from: KL(student ‖ teacher) at each of their positions, which
    is the single-step term alone.
    """
    from student_train.losses.fused import fused_divergence, fused_policy

    assert batch.targets is not None
    if batch.policy is None:
        return fused_divergence("reverse_kl", hidden, head, batch.targets, labels=batch.labels)
    policy = stage.policy or PolicyConfig()
    return fused_policy(hidden, head, batch.targets, labels=batch.labels, terms=batch.policy, policy=policy)


def _check(stage: StageConfig) -> None:
    """Refuse sequences whose probability under the policy that wrote them would be unknown or out of date."""
    rollout, policy = stage.rollout, stage.policy
    assert rollout is not None
    if rollout.share < 1.0:
        raise ValueError(
            f"rollout.share={rollout.share} puts the teacher's own sequences beside the student's, whose probability "
            "under minillm's behaviour policy is not known: set share: 1 or objective: kd"
        )
    old = rollout.ahead or rollout.replay or rollout.replay_from is not None
    if policy is not None and policy.importance != "clip" and old:
        raise ValueError(
            f"policy.importance={policy.importance} weighs by the weights that wrote a rollout, not by those that "
            "learn from it later (rollout.ahead, replay, replay_from): set importance: clip"
        )


def _card(stage: StageConfig) -> str:
    policy = stage.policy or PolicyConfig()
    return f"`minillm` with {in_words(policy.model_dump(exclude_none=True))}, {data_learned(stage)}"


OBJECTIVE = Objective(
    name="minillm",
    learns="to write what the teacher finds likely",
    needs="topk",
    on_policy="always",
    settings=frozenset({"policy"}),
    loss=policy_loss,
    card=_card,
    check=_check,
)
