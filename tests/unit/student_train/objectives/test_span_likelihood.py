"""span_likelihood: it is kd where the tokens are the same, and compares the text of chunks where they are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from objective_builders import aligned_batch, batch, stage, student
from pydantic import ValidationError

from student_train.feed.microbatch import collate
from student_train.losses.aligned import Aligned
from student_train.losses.divergences import divergence
from student_train.losses.metrics import ALIGNED_METRICS, METRICS
from student_train.losses.spans import span_divergence
from student_train.objectives.kd import OBJECTIVE as KD
from student_train.objectives.span_likelihood import OBJECTIVE

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"ce_weight": 0.4},
    {"divergence": "reverse_kl"},
    {"divergence": {"kind": "jsd", "beta": 0.3}, "ce_weight": 0.2},
    {"divergence": "alpha_beta"},
)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("told", [batch, aligned_batch])
def test_where_the_tokens_are_the_same_it_is_kd_in_the_same_bits(told: Any, settings: dict[str, Any]) -> None:
    plain = batch()
    hidden, head = student(len(plain.labels))
    expected = KD.loss(hidden, head, plain, stage(objective="kd", **settings))
    found = OBJECTIVE.loss(hidden, head, told(), stage(objective="span_likelihood", **settings))
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.metrics, expected.metrics)
    ours, theirs = (torch.autograd.grad(each.loss, (hidden, head.weight)) for each in (found, expected))
    assert all(map(torch.equal, ours, theirs))


def test_chunks_of_several_tokens_are_compared_by_the_likelihood_of_their_text() -> None:
    rows, plain = aligned_batch(chunked=True), batch()
    aligned = rows.aligned
    assert aligned is not None and 0 < int(aligned.exact.sum()) < len(rows.labels)
    hidden, head = student(len(rows.labels))
    found = OBJECTIVE.loss(hidden, head, rows, stage(objective="span_likelihood", ce_weight=0.3))
    logits, exact = hidden @ head.weight.T, aligned.exact
    single = divergence("forward_kl", logits[exact], aligned.targets).sum()
    spans = span_divergence(
        "forward_kl",
        hidden[~exact],
        head,
        labels=rows.labels[~exact],
        spans=aligned.spans[~exact],
        span_logprobs=aligned.span_logprobs,
    )
    ce = torch.nn.functional.cross_entropy(logits, rows.labels, reduction="sum")
    torch.testing.assert_close(found.loss, single + spans.loss + 0.3 * ce, rtol=1e-5, atol=1e-4)
    sums = dict(zip(METRICS, found.metrics.tolist(), strict=True))
    assert sums["ce"] == pytest.approx(ce.item(), rel=1e-5)
    assert {name for name, value in sums.items() if value} <= set(ALIGNED_METRICS)
    assert not torch.equal(found.loss, KD.loss(hidden, head, plain, stage(objective="kd", ce_weight=0.3)).loss)


def test_an_empty_batch_gives_zero_with_a_gradient() -> None:
    hidden, head = student(0)
    empty = replace(collate([], with_targets=False), aligned=Aligned.joined([]))
    found = OBJECTIVE.loss(hidden, head, empty, stage(objective="span_likelihood"))
    (grad,) = torch.autograd.grad(found.loss, head.weight)
    assert found.loss.item() == 0.0 and not grad.any()


def test_settings_that_do_not_act_on_it_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"temperature=2.0 only acts on objective=kd, not span_likelihood"):
        stage(objective="span_likelihood", temperature=2.0)
    with pytest.raises(ValidationError, match=r"divergence=adaptive_kl takes head and tail.*or objective: kd"):
        stage(objective="span_likelihood", divergence="adaptive_kl")


def test_the_card_says_what_was_learned() -> None:
    card = OBJECTIVE.card(stage(objective="span_likelihood", divergence={"kind": "jsd", "beta": 0.3}))
    assert card == "`span_likelihood`, jsd with beta 0.3, ce_weight 0.0, on teacher answers"
