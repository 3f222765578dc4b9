"""Cross-entropy on answers and on plain text."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from objective_builders import batch, cross_entropy, stage, student

from configs.objectives import find_objective
from student_train.losses.divergences import divergence
from student_train.losses.metrics import METRICS
from student_train.objectives.answers import answer_loss, plain_loss


@pytest.mark.parametrize(("name", "source"), [("sft", "gold"), ("seqkd", "teacher")])
@pytest.mark.parametrize("with_targets", [True, False])
def test_answers_are_learned_by_cross_entropy_and_beliefs_only_measured(
    name: str, source: str, with_targets: bool
) -> None:
    rows = batch(with_targets=with_targets)
    hidden, head = student(len(rows.labels))
    sums = find_objective(name).loss(hidden, head, rows, stage(objective=name, source=source))
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


def test_plain_text_counts_as_its_weight_says_and_is_told_apart() -> None:
    rows = dataclasses.replace(batch(with_targets=False), plain_weight=0.25)
    hidden, head = student(len(rows.labels))
    sums = plain_loss(hidden, head, rows, stage())
    whole = answer_loss(hidden, head, rows, stage())
    assert float(sums.loss.detach()) == 0.25 * float(whole.loss.detach())
    found = dict(zip(METRICS, sums.metrics.tolist(), strict=True))
    ce = float(whole.metrics[METRICS.index("ce")])
    assert {name: value for name, value in found.items() if value} == {"pretrain": ce}
