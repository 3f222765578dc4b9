"""uld: probabilities by rank, at every token or where both go on from the same text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objective_builders import aligned_batch, batch, stage, student
from pydantic import ValidationError

from configs.errors import ConfigError
from student_train.losses.metrics import ALIGNED_METRICS, METRICS
from student_train.losses.ranks import ranked_distance
from student_train.losses.targets import SparseTargets
from student_train.objectives.uld import OBJECTIVE


@pytest.mark.parametrize("ce_weight", [0.0, 0.5])
def test_the_same_tokens_alone_or_aligned_give_the_same_loss(ce_weight: float) -> None:
    plain, aligned = batch(), aligned_batch()
    hidden, head = student(len(plain.labels))
    assert plain.targets is not None
    one, other = (
        OBJECTIVE.loss(hidden, head, each, stage(objective="uld", ce_weight=ce_weight)) for each in (plain, aligned)
    )
    assert torch.equal(one.loss, other.loss)
    logits = hidden @ head.weight.T
    p = torch.cat([plain.targets.logprobs, plain.targets.tail_logmass[:, None]], dim=1).exp()  # type: ignore[list-item,index]
    q = logits.softmax(1).sort(dim=1, descending=True).values
    q = torch.cat([q[:, :8], q[:, 8:].sum(dim=1, keepdim=True)], dim=1)
    expected = (p - q).abs().sum() + ce_weight * torch.nn.functional.cross_entropy(
        logits, plain.labels, reduction="sum"
    )
    torch.testing.assert_close(one.loss, expected, rtol=1e-5, atol=1e-4)
    ours, theirs = (torch.autograd.grad(each, (hidden, head.weight)) for each in (other.loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_only_positions_behind_a_common_boundary_are_compared() -> None:
    rows = aligned_batch(chunked=True)
    aligned = rows.aligned
    assert aligned is not None and 0 < int(aligned.begins.sum()) < len(rows.labels)
    hidden, head = student(len(rows.labels))
    found = OBJECTIVE.loss(hidden, head, rows, stage(objective="uld"))
    expected = ranked_distance(hidden[aligned.begins], head, aligned.ranked).loss
    assert torch.equal(found.loss, expected)
    sums = dict(zip(METRICS, found.metrics.tolist(), strict=True))
    assert {name for name, value in sums.items() if value} <= set(ALIGNED_METRICS)
    assert sums["divergence"] == sums["loss"] > 0.0 and sums["ce"] > 0.0


def test_metrics_of_the_same_tokens_are_those_of_any_objective() -> None:
    rows = batch()
    hidden, head = student(len(rows.labels))
    sums = dict(zip(METRICS, OBJECTIVE.loss(hidden, head, rows, stage(objective="uld")).metrics.tolist(), strict=True))
    assert sums["forward_kl"] > 0.0 and sums["teacher_mass"] > 0.0
    assert sums["divergence"] != sums["forward_kl"]


def test_draws_are_refused() -> None:
    rows = batch()
    assert rows.targets is not None
    drawn = SparseTargets.drawn(rows.targets.ids, torch.ones_like(rows.targets.ids))
    hidden, head = student(len(rows.labels))
    with pytest.raises(ConfigError, match=r"objective=uld compares probabilities, not draws"):
        OBJECTIVE.loss(hidden, head, replace(rows, targets=drawn), stage(objective="uld"))


def test_settings_that_do_not_act_on_it_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"divergence=tvd only acts on objective=kd or span_likelihood, not uld"):
        stage(objective="uld", divergence="tvd")


def test_the_card_says_what_was_learned() -> None:
    assert OBJECTIVE.card(stage(objective="uld", ce_weight=0.5)) == (
        "`uld`, probabilities by rank with ce_weight 0.5, on teacher answers"
    )
