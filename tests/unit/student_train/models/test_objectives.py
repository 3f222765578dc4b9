"""Objectives: every setting of a stage reaches the loss, in value and gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from student_builders import VOCAB, records
from torch import Tensor

from configs.errors import ConfigError
from configs.rollouts import PolicyConfig
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.losses.advantages import PolicyTerms
from student_train.losses.divergences import divergence
from student_train.losses.metrics import METRICS
from student_train.losses.minillm import policy_rows
from student_train.models.objectives import OBJECTIVES, Head, needs_targets, objective

HIDDEN = 12


def batch(*, k: int = 8, with_targets: bool = True) -> MicroBatch:
    return collate(records(4, seed=1, k=k), with_targets=with_targets)


def student(positions: int) -> tuple[Tensor, Head]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, HIDDEN, generator=generator, requires_grad=True)
    return hidden, Head(torch.randn(VOCAB, HIDDEN, generator=generator, requires_grad=True), VOCAB)


def stage(**settings: Any) -> StageConfig:
    return StageConfig.model_validate({"objective": "kd", "steps": 1} | settings)


def cross_entropy(logits: Tensor, rows: MicroBatch) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, rows.labels, reduction="sum")


def check(rows: MicroBatch, settings: StageConfig, *, weight: float = 1.0, **explicit: Any) -> None:
    hidden, head = student(len(rows.labels))
    sums = objective("kd")(hidden, head, rows, settings)
    logits = hidden @ head.weight.T
    assert rows.targets is not None
    apart = divergence(settings.divergence.kind, logits, rows.targets, **explicit).sum()
    expected = weight * apart + settings.ce_weight * cross_entropy(logits, rows)
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-4)
    pairs = [torch.autograd.grad(loss, (hidden, head.weight)) for loss in (sums.loss, expected)]
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-4)
    assert float(sums.metrics[METRICS.index("divergence")]) == pytest.approx(float(apart.detach()), rel=1e-5)


@pytest.mark.parametrize(
    "block",
    [
        {"kind": "forward_kl"},
        {"kind": "reverse_kl"},
        {"kind": "tvd"},
        {"kind": "jsd", "beta": 0.3},
        {"kind": "skew_kl", "alpha": 0.4},
        {"kind": "skew_reverse_kl", "alpha": 0.4},
        {"kind": "adaptive_kl", "mu": 0.2},
        {"kind": "alpha_beta", "a": 0.6, "b": -0.2},
    ],
    ids=lambda block: str(block["kind"]),
)
def test_kd_learns_the_divergence_of_the_stage(block: dict[str, Any]) -> None:
    parameters = {name: value for name, value in block.items() if name != "kind"}
    check(batch(), stage(divergence=block, ce_weight=0.25), **parameters)


def test_kd_takes_the_tail_of_the_stage() -> None:
    check(batch(), stage(divergence="reverse_kl", tail="renormalize"), tail="renormalize")


def test_a_temperature_multiplies_the_divergence_by_its_square_and_not_the_cross_entropy() -> None:
    check(batch(k=VOCAB), stage(temperature=3.0, ce_weight=0.5), weight=9.0, temperature=3.0)
    settings = stage(temperature=3.0, tail="renormalize")
    check(batch(), settings, weight=9.0, tail="renormalize", temperature=3.0)


def test_a_temperature_with_a_part_of_the_distribution_is_refused() -> None:
    rows = batch()
    with pytest.raises(ConfigError, match="temperature=3 needs the whole distribution, but k=8 of 97 tokens are known"):
        objective("kd")(*student(len(rows.labels)), rows, stage(temperature=3.0))


def test_softened_gradients_keep_their_size() -> None:
    """Hinton et al. 2015: for high temperatures T^2 times the gradient tends to (z - v) / N of centred logits."""
    rows = batch(k=VOCAB)
    assert rows.targets is not None and rows.targets.logprobs is not None
    hidden, head = student(len(rows.labels))
    z = (hidden @ head.weight.T).detach()
    v = torch.zeros_like(z).scatter(1, rows.targets.ids, rows.targets.logprobs)
    logits = z.clone().requires_grad_()
    identity = torch.eye(VOCAB)
    sums = objective("kd")(logits, Head(identity, VOCAB), rows, stage(temperature=1000.0))
    (grad,) = torch.autograd.grad(sums.loss, logits)
    centred = (z - z.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))
    torch.testing.assert_close(grad, centred / VOCAB, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(("name", "source"), [("sft", "gold"), ("seqkd", "teacher")])
@pytest.mark.parametrize("with_targets", [True, False])
def test_answers_are_learned_by_cross_entropy_and_beliefs_only_measured(
    name: str, source: str, with_targets: bool
) -> None:
    rows = batch(with_targets=with_targets)
    hidden, head = student(len(rows.labels))
    sums = objective(name)(hidden, head, rows, stage(objective=name, source=source))
    expected = cross_entropy(hidden @ head.weight.T, rows)
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-4)
    pairs = [torch.autograd.grad(loss, (hidden, head.weight)) for loss in (sums.loss, expected)]
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-4)
    forward_kl = float(sums.metrics[METRICS.index("forward_kl")])
    if rows.targets is None:
        assert forward_kl == 0.0
    else:
        measured = divergence("forward_kl", (hidden @ head.weight.T).detach(), rows.targets).sum()
        assert forward_kl == pytest.approx(float(measured), rel=1e-5)


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
    sums = objective("minillm")(hidden, head, rows, settings)
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
    sums = objective("minillm")(hidden, head, rows, settings)
    torch.testing.assert_close(
        sums.loss, divergence("reverse_kl", hidden @ head.weight.T, rows.targets).sum(), rtol=1e-5, atol=1e-4
    )


def test_an_empty_batch_is_fine_with_every_setting() -> None:
    rows = collate([], with_targets=True)
    for settings in (stage(temperature=2.0), stage(divergence={"kind": "adaptive_kl", "mu": 0.9})):
        sums = objective("kd")(*student(0), rows, settings)
        assert float(sums.loss.detach()) == float(sums.metrics.abs().max()) == 0.0
    sums = objective("minillm")(*student(0), sampled(rows), stage())
    assert float(sums.loss.detach()) == float(sums.metrics.abs().max()) == 0.0


def test_names() -> None:
    assert [name for name in OBJECTIVES if needs_targets(name)] == ["kd", "minillm"]
    with pytest.raises(ConfigError, match="objective=dpo is unknown: choose one of sft, seqkd, kd, minillm"):
        objective("dpo")
