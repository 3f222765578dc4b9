"""MiniLLM: the policy of the stage reaches the loss, in value and gradient; what its rule refuses; its card."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from objective_builders import batch, stage, student
from pydantic import ValidationError

from configs.rollouts import PolicyConfig
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.losses.advantages import PolicyTerms
from student_train.losses.divergences import divergence
from student_train.losses.metrics import METRICS
from student_train.losses.minillm import policy_rows
from student_train.objectives.minillm import OBJECTIVE


def sampled(rows: MicroBatch) -> MicroBatch:
    """The batch as if a student had sampled its labels."""
    generator = torch.Generator().manual_seed(3)
    terms = torch.randn(3, len(rows.labels), generator=generator, dtype=torch.float64)
    policy = PolicyTerms(terms[0], terms[1] - 4.0, terms[2].exp())
    return dataclasses.replace(rows, policy=policy).to(torch.device("cpu"))


@pytest.mark.parametrize(
    "policy", [None, {"clip": 0.05}, {"importance": "trajectory", "single_step": 0.25}, {"mode": "lmops"}]
)
def test_minillm_takes_the_policy_of_the_stage(policy: dict[str, Any] | None) -> None:
    settings = stage(objective="minillm", steps=None, rollout={"count": 1}, policy=policy)
    rows = sampled(batch())
    assert rows.targets is not None and rows.policy is not None
    hidden, head = student(len(rows.labels))
    sums = OBJECTIVE.loss(hidden, head, rows, settings)
    block, logits = settings.policy or PolicyConfig(), hidden @ head.weight.T
    logprobs = logits.log_softmax(1).gather(1, rows.labels[:, None])[:, 0]
    on_policy, clipped = policy_rows(logprobs, rows.policy, policy=block)
    single = rows.policy.single_weights.float() * divergence("reverse_kl", logits, rows.targets)
    expected = on_policy.sum() + block.single_step * single.sum()
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-4)
    pairs = [torch.autograd.grad(loss, (hidden, head.weight)) for loss in (sums.loss, expected)]
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-4)
    assert float(sums.metrics[METRICS.index("clipped")]) == float(clipped.sum())


def test_minillm_on_answers_that_no_student_sampled() -> None:
    """Held-out answers: reverse KL alone."""
    settings = stage(objective="minillm", steps=None, rollout={"count": 1}, policy={"single_step": 0.0})
    rows = batch()
    assert rows.targets is not None
    hidden, head = student(len(rows.labels))
    sums = OBJECTIVE.loss(hidden, head, rows, settings)
    torch.testing.assert_close(
        sums.loss, divergence("reverse_kl", hidden @ head.weight.T, rows.targets).sum(), rtol=1e-5, atol=1e-4
    )


def test_an_empty_batch_is_fine() -> None:
    sums = OBJECTIVE.loss(*student(0), sampled(collate([], with_targets=True)), minillm())
    assert float(sums.loss.detach()) == float(sums.metrics.abs().max()) == 0.0


def minillm(**values: Any) -> StageConfig:
    return stage(**{"objective": "minillm", "steps": None, "rollout": {"count": 1}} | values)


@pytest.mark.parametrize("old", [{"ahead": True}, {"replay": 1}, {"replay_from": "runs/old"}])
def test_weights_of_old_rollouts_allow_the_clip_alone(old: dict[str, Any]) -> None:
    assert minillm(rollout={"count": 1} | old, policy={"importance": "clip"}).rollout
    assert minillm(policy={"importance": "none"}).policy
    with pytest.raises(ValidationError, match=r"policy.importance=none weighs by .* set importance: clip"):
        minillm(rollout={"count": 1} | old, policy={"importance": "none"})


def test_sequences_of_the_teacher_have_no_probability_under_the_policy() -> None:
    with pytest.raises(ValidationError, match=r"rollout.share=0.75 .* set share: 1 or objective: kd"):
        minillm(rollout={"count": 1, "share": 0.75})


def test_the_card_names_policy_and_rollouts() -> None:
    settings = minillm(policy={"importance": "token", "weight_cap": 2.0}, rollout={"count": 3, "alpha": 0.5})
    assert OBJECTIVE.card(settings) == (
        "`minillm` with mode paper, importance token, clip 0.2, weight_cap 2.0, length_normalised True, advantage "
        "return, reward_scale 1.0, single_step 1.0, on 3 rollouts of 256 sequences by the student, tokens mixed with "
        "the teacher's at alpha 0.5, 1 passes over each"
    )
