"""kd: every setting of a stage reaches the loss, in value and gradient, and its card."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objective_builders import batch, cross_entropy, stage, student
from student_builders import VOCAB

from configs.errors import ConfigError
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.losses.divergences import divergence
from student_train.losses.head import Head
from student_train.losses.metrics import METRICS
from student_train.objectives.kd import OBJECTIVE


def check(rows: MicroBatch, settings: StageConfig, *, weight: float = 1.0, **explicit: Any) -> None:
    hidden, head = student(len(rows.labels))
    sums = OBJECTIVE.loss(hidden, head, rows, settings)
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
        OBJECTIVE.loss(*student(len(rows.labels)), rows, stage(temperature=3.0))


def test_softened_gradients_keep_their_size() -> None:
    """Hinton et al. 2015: for high temperatures T^2 times the gradient tends to (z - v) / N of centred logits."""
    rows = batch(k=VOCAB)
    assert rows.targets is not None and rows.targets.logprobs is not None
    hidden, head = student(len(rows.labels))
    z = (hidden @ head.weight.T).detach()
    v = torch.zeros_like(z).scatter(1, rows.targets.ids, rows.targets.logprobs)
    logits = z.clone().requires_grad_()
    identity = torch.eye(VOCAB)
    sums = OBJECTIVE.loss(logits, Head(identity, VOCAB), rows, stage(temperature=1000.0))
    (grad,) = torch.autograd.grad(sums.loss, logits)
    centred = (z - z.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))
    torch.testing.assert_close(grad, centred / VOCAB, rtol=0.02, atol=2e-3)


def test_an_empty_batch_is_fine_with_every_setting() -> None:
    rows = collate([], with_targets=True)
    for settings in (stage(temperature=2.0), stage(divergence={"kind": "adaptive_kl", "mu": 0.9})):
        sums = OBJECTIVE.loss(*student(0), rows, settings)
        assert float(sums.loss.detach()) == float(sums.metrics.abs().max()) == 0.0


def test_the_card_names_the_divergence_with_every_parameter() -> None:
    settings = stage(divergence={"kind": "alpha_beta", "a": 0.3}, tail="renormalize", temperature=2.0, ce_weight=0.1)
    assert OBJECTIVE.card(settings) == (
        "`kd`, alpha_beta with a 0.3, b 0.7, tail renormalize, temperature 2.0, ce_weight 0.1, on teacher answers"
    )
    assert OBJECTIVE.card(stage(source="gold")).endswith("ce_weight 0.0, on gold answers")
