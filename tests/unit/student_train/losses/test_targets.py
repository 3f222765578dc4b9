"""Targets on the device: dense teachers, and draws with the padding of the cache."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from cache.records import TeacherRecord, tail_logmass
from cache.sampling import sample_rows
from configs.errors import ConfigError
from student_train.losses.divergences import divergence
from student_train.losses.fused import fused_divergence
from student_train.losses.head import Head
from student_train.losses.targets import SparseTargets


def logits(*, rows: int, vocab: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(2, rows, vocab, generator=generator, dtype=torch.float64)
    return 2 * teacher, student


def every_outcome(probabilities: Tensor, *, draws: int) -> tuple[Tensor, SparseTargets]:
    """Each ordered outcome of `draws` draws from one distribution: its probability, and the outcomes as targets."""
    weights, ids, counts = [], [], []
    for outcome in product(range(len(probabilities)), repeat=draws):
        weights.append(probabilities[list(outcome)].prod())
        found = Counter(outcome).most_common()
        found += [(-1, 0)] * (draws - len(found))
        ids.append([token for token, _ in found])
        counts.append([count for _, count in found])
    return torch.stack(weights), SparseTargets.drawn(torch.tensor(ids), torch.tensor(counts))


def test_padding_becomes_ids_that_the_row_does_not_hold() -> None:
    ids = torch.tensor([[7, 0, -1, -1], [2, -1, -1, -1], [3, 1, 0, 2], [0, 1, 9, -1]])
    counts = torch.tensor([[3, 1, 0, 0], [4, 0, 0, 0], [1, 1, 1, 1], [2, 1, 1, 0]])
    targets = SparseTargets.drawn(ids, counts)
    assert targets.ids.tolist() == [[7, 0, 1, 2], [2, 0, 1, 3], [3, 1, 0, 2], [0, 1, 9, 2]]
    assert targets.counts is counts and targets.logprobs is None and targets.tail_logmass is None


def test_records_of_draws_make_targets_without_a_second_look() -> None:
    logprobs = logits(rows=5, vocab=30)[0].float().log_softmax(1).sort(dim=1, descending=True)
    record = TeacherRecord(
        key=bytes(32), token_ids=torch.arange(6).int().numpy(), prompt_len=1, finish="stop", origin="prefill",
        topk_ids=logprobs.indices.int().numpy(), topk_logprobs=logprobs.values.numpy(),
        target_logprobs=logprobs.values[:, 0].numpy(), target_ranks=torch.ones(5).int().numpy(),
        tail_logmass=tail_logmass(logprobs.values.numpy(), vocab=30),
    )  # fmt: skip
    drawn = sample_rows(record, draws=12, seed=3)
    assert drawn.topk_ids is not None and drawn.counts is not None and (drawn.topk_ids == -1).any()
    targets = SparseTargets.drawn(torch.from_numpy(drawn.topk_ids).long(), torch.from_numpy(drawn.counts).long())
    student = logits(rows=5, vocab=30, seed=1)[1]
    logq = student.log_softmax(1)
    for row in range(5):
        pairs = zip(drawn.topk_ids[row].tolist(), drawn.counts[row].tolist(), strict=True)
        expected = -sum(count / 12 * float(logq[row, token]) for token, count in pairs if count)
        assert float(divergence("forward_kl", student, targets)[row]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_draws_estimate_value_and_gradient_without_bias(draws: int) -> None:
    # Exact: the mean over all outcomes, each with its probability.
    teacher, student = logits(rows=1, vocab=4)
    p = teacher[0].softmax(0)
    weights, targets = every_outcome(p, draws=draws)
    rows = student.expand(len(weights), 4).clone().requires_grad_()
    value = divergence("forward_kl", rows, targets)
    (grad,) = torch.autograd.grad(value.sum(), rows)
    dense = student.clone().requires_grad_()
    (exact,) = torch.autograd.grad(divergence("forward_kl", dense, teacher).sum(), dense)
    torch.testing.assert_close((weights[:, None] * grad).sum(0), exact[0])
    torch.testing.assert_close((weights * value).sum(), -(p * student[0].log_softmax(0)).sum())
    # With the log-probabilities of the drawn ids the value is that of the divergence too.
    scored = SparseTargets(targets.ids, p.log()[targets.ids], None, targets.counts)
    value = divergence("forward_kl", student.expand(len(weights), 4), scored)
    torch.testing.assert_close((weights * value).sum(), divergence("forward_kl", student, teacher)[0])


def test_the_fused_form_takes_draws() -> None:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(9, 6, generator=generator, requires_grad=True)
    head = torch.randn(20, 6, generator=generator, requires_grad=True)
    _, outcomes = every_outcome(torch.tensor([0.6, 0.3, 0.1]), draws=2)
    targets = SparseTargets(outcomes.ids + 4, None, None, outcomes.counts)
    fused = fused_divergence("forward_kl", hidden, Head(head, chunk_bytes=4 * 20 * 4), targets)
    expected = divergence("forward_kl", hidden @ head.T, targets).sum()
    torch.testing.assert_close(fused.loss, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(loss, (hidden, head)) for loss in (fused.loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"), [("reverse_kl", {}), ("forward_kl", {"tail": "renormalize"}), ("forward_kl", {"temperature": 2.0})]
)  # fmt: skip
def test_draws_allow_the_plain_forward_kl_alone(kind: str, settings: dict[str, Any]) -> None:
    _, targets = every_outcome(torch.tensor([0.5, 0.5]), draws=2)
    with pytest.raises(ConfigError, match="drawn by sampling, which allows forward_kl, bucket and 1 alone"):
        divergence(kind, torch.zeros(4, 3), targets, **settings)


def test_an_impossible_draw_costs_a_finite_amount() -> None:
    _, targets = every_outcome(torch.tensor([0.5, 0.5]), draws=2)
    student = torch.zeros(4, 3)
    student[:, 0] = float("-inf")
    student.requires_grad_()
    value = divergence("forward_kl", student, targets)
    (grad,) = torch.autograd.grad(value.sum(), student)
    assert bool(torch.isfinite(value).all()) and bool(torch.isfinite(grad).all())
    assert value.tolist()[0] == pytest.approx(87.0)


def test_many_draws_come_close_to_the_dense_gradient() -> None:
    """The mean of 4,000 estimates from 16 draws lies within four standard errors and a few draws of a rare token."""
    teacher, student = logits(rows=1, vocab=50)
    repeats, draws = 4000, 16
    generator = torch.Generator().manual_seed(0)
    sampled = torch.multinomial(teacher[0].softmax(0), repeats * draws, replacement=True, generator=generator)
    ids, counts = torch.full((repeats, draws), -1), torch.zeros(repeats, draws, dtype=torch.int64)
    for row, outcome in enumerate(sampled.reshape(repeats, draws).tolist()):
        for column, (token, count) in enumerate(Counter(outcome).most_common()):
            ids[row, column], counts[row, column] = token, count
    rows = student.expand(repeats, 50).clone().requires_grad_()
    (grad,) = torch.autograd.grad(divergence("forward_kl", rows, SparseTargets.drawn(ids, counts)).sum(), rows)
    p = teacher.softmax(1)[0]
    error = (p * (1 - p) / (repeats * draws)).sqrt()
    gap = (grad.mean(dim=0) - (student.softmax(1)[0] - p)).abs()
    assert bool((gap <= 4 * error + 5 / (repeats * draws)).all())


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "tvd"])
def test_padding_changes_nothing(kind: str, tail: Any) -> None:
    teacher, student = logits(rows=5, vocab=9)
    student.requires_grad_()
    whole = teacher.log_softmax(1)
    best = whole.topk(3, dim=1)
    rest = whole.scatter(1, best.indices, float("-inf")).logsumexp(1)
    plain = SparseTargets(best.indices, best.values, rest)
    filled = SparseTargets.padded(
        torch.cat([best.indices, torch.full((5, 4), -1)], dim=1),
        torch.cat([best.values, torch.full((5, 4), float("-inf"), dtype=torch.float64)], dim=1),
        rest,
    )
    assert all(len(set(ids.tolist())) == filled.k for ids in filled.ids)
    expected, found = (divergence(kind, student, each, tail=tail) for each in (plain, filled[:].to(student.device)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(each.sum(), student)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
