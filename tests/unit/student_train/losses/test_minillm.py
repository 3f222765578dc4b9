"""MiniLLM's loss against worlds so small that every response can be written down, and against plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.rollouts import PolicyConfig
from student_train.losses.minillm import MinillmLoss, PlainText, SampledResponses, minillm_loss
from student_train.losses.targets import SparseTargets

VOCAB, LENGTH, END, ALPHA = 3, 3, 0, 0.2

EXACT: dict[str, Any] = {"length_normalised": False}
"""With these settings the expected gradient is the true one, given the right importance weights."""

MODES = [
    PolicyConfig(),
    PolicyConfig(reward_scale=2.0, reward_clip=0.5, clip=0.1, single_step=0.5),
    PolicyConfig(importance="token", weight_cap=1.1),
    PolicyConfig(importance="per_decision", length_normalised=False),
    PolicyConfig(importance="trajectory"),
    PolicyConfig(importance="none", advantage="token", single_step=0.0),
    PolicyConfig(mode="lmops"),
]


@dataclass(frozen=True)
class World:
    """All responses that a vocabulary allows: [S, L] ids and mask, and the row of its prefix's table at each token."""

    ids: Tensor
    mask: Tensor
    places: Tensor
    prefixes: int

    def logprobs(self, logits: Tensor) -> Tensor:
        """Of each token of each response, from a table of logits [prefixes, V]; 0 on padding."""
        chosen = logits.log_softmax(1)[self.places].gather(2, self.ids[:, :, None])[:, :, 0]
        return chosen.masked_fill(~self.mask, 0.0)


def world() -> World:
    going_on = [token for token in range(VOCAB) if token != END]
    prefixes = [prefix for length in range(LENGTH) for prefix in itertools.product(going_on, repeat=length)]
    ended = [(*prefix, END) for prefix in prefixes]
    whole = list(itertools.product(going_on, repeat=LENGTH))
    rows = [*ended, *whole]
    ids = torch.tensor([[*row, *[END] * (LENGTH - len(row))] for row in rows])
    mask = torch.tensor([[at < len(row) for at in range(LENGTH)] for row in rows])
    places = torch.tensor([[prefixes.index(row[:at]) if at < len(row) else 0 for at in range(LENGTH)] for row in rows])
    return World(ids, mask, places, len(prefixes))


WORLD = world()


def tables(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of teacher and student after every prefix."""
    generator = torch.Generator().manual_seed(seed)
    teacher = 1.5 * torch.randn(WORLD.prefixes, VOCAB, generator=generator, dtype=torch.float64)
    student = torch.randn(WORLD.prefixes, VOCAB, generator=generator, dtype=torch.float64, requires_grad=True)
    return teacher, student


def behaviour(teacher: Tensor, student: Tensor, *, alpha: float) -> Tensor:
    """b of each response."""
    mixed = alpha * teacher.softmax(1) + (1 - alpha) * student.detach().softmax(1)
    return WORLD.logprobs(mixed.log()).sum(1).exp()


def expected_gradient(
    loss_of: Callable[[int], Tensor], teacher: Tensor, student: Tensor, *, alpha: float = 0.0
) -> Tensor:
    """The expectation over responses that b writes of the gradient of one response's loss."""
    share = behaviour(teacher, student, alpha=alpha)
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-12)
    losses = torch.stack([loss_of(row) for row in range(len(share))])
    (gradient,) = torch.autograd.grad((share * losses).sum(), student)
    return gradient


def response_loss(
    row: int, teacher: Tensor, student: Tensor, policy: PolicyConfig, *, alpha: float = 0.0
) -> MinillmLoss:
    """The loss of one response, sampled from the student as it is."""
    some = slice(row, row + 1)
    sampled = SampledResponses(
        ids=WORLD.ids[some],
        mask=WORLD.mask[some],
        old_logprobs=WORLD.logprobs(student.detach())[some],
        teacher_logprobs=WORLD.logprobs(teacher)[some],
        alpha=alpha,
    )
    places = WORLD.places[some]
    return minillm_loss(student[places], sampled, teacher[places], policy=policy, reduction="sequences")


def true_gradient(teacher: Tensor, student: Tensor) -> Tensor:
    """Of KL(q ‖ p) over whole responses, by their enumeration."""
    ours, theirs = WORLD.logprobs(student).sum(1), WORLD.logprobs(teacher).sum(1)
    (gradient,) = torch.autograd.grad((ours.exp() * (ours - theirs)).sum(), student)
    return gradient


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def expected_of(policy: PolicyConfig, *, alpha: float) -> float:
    """How far the expected gradient is from the true one."""
    teacher, student = tables()
    found = expected_gradient(
        lambda row: response_loss(row, teacher, student, policy, alpha=alpha).total, teacher, student, alpha=alpha
    )
    return relative_error(found, true_gradient(teacher, student))


@pytest.mark.parametrize(
    ("alpha", "importance"), [(0.0, "none"), (0.0, "clip"), (ALPHA, "per_decision"), (ALPHA, "trajectory")]
)
def test_the_expected_gradient_is_that_of_the_sequence_kl(alpha: float, importance: Any) -> None:
    """At the weights that sampled; without mixing the clip's ratio is 1 there, so it cuts nothing."""
    assert expected_of(PolicyConfig(importance=importance, **EXACT), alpha=alpha) < 1e-10


@pytest.mark.parametrize("importance", ["token", "none", "clip"])
def test_under_mixing_other_weights_are_biased(importance: Any) -> None:
    assert expected_of(PolicyConfig(importance=importance, **EXACT), alpha=ALPHA) > 1e-3


def test_a_cap_and_length_normalisation_are_biased() -> None:
    assert expected_of(PolicyConfig(importance="per_decision", weight_cap=1.0, **EXACT), alpha=ALPHA) > 1e-3
    assert expected_of(PolicyConfig(importance="none"), alpha=0.0) > 1e-3


@pytest.mark.parametrize("own_reward", [True, False])
def test_the_reward_of_a_token_itself_belongs_to_the_single_step_term(own_reward: bool) -> None:
    """Rewards from a token on, beside the single-step term, count its own twice; those after it do not."""
    teacher, student = tables()

    def loss(row: int) -> Tensor:
        chosen, p = WORLD.logprobs(student)[row], WORLD.logprobs(teacher)[row]
        rewards = p - chosen.detach()
        logits = student[WORLD.places[row]].log_softmax(1)
        single = (logits.exp() * (logits - teacher[WORLD.places[row]].log_softmax(1))).sum(1)[WORLD.mask[row]].sum()
        returns = rewards.flip(0).cumsum(0).flip(0) - (0.0 if own_reward else rewards)
        return single - (returns * chosen).sum()

    error = relative_error(expected_gradient(loss, teacher, student), true_gradient(teacher, student))
    assert error > 0.3 if own_reward else error < 1e-10


def test_the_sampled_tokens_own_advantage_is_token_level_reverse_kl_with_prefixes_frozen() -> None:
    teacher, student = tables()
    policy = PolicyConfig(importance="none", advantage="token", single_step=0.0)
    found = expected_gradient(lambda row: response_loss(row, teacher, student, policy).total, teacher, student)
    q, p = student.log_softmax(1), teacher.log_softmax(1)
    per_prefix = (q.exp() * (q - p)).sum(1)
    apart = per_prefix[WORLD.places].masked_fill(~WORLD.mask, 0.0).sum(1)
    (expected,) = torch.autograd.grad((behaviour(teacher, student, alpha=0.0) * apart).sum(), student)
    assert relative_error(found, expected) < 1e-10
    assert relative_error(found, true_gradient(teacher, student)) > 1e-2


@dataclass
class Case:
    """A batch with responses of several lengths; the student has moved on since it sampled."""

    logits: Tensor
    ids: Tensor
    mask: Tensor
    old: Tensor
    teacher: Tensor

    def loss(self, policy: PolicyConfig, *, alpha: float = ALPHA, **settings: Any) -> MinillmLoss:
        old, teacher = chosen(self.old, self.ids), chosen(self.teacher, self.ids)
        sampled = SampledResponses(self.ids, self.mask, old, teacher, alpha)
        return minillm_loss(self.logits, sampled, settings.pop("targets", self.teacher), policy=policy, **settings)


def chosen(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.log_softmax(2).gather(2, ids.clamp(0, logits.shape[2] - 1)[:, :, None])[:, :, 0]


def case(*, vocab: int = 7, lengths: tuple[int, ...] = (4, 1, 6), moved: float = 0.3, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), vocab)
    old = torch.randn(shape, generator=generator, dtype=torch.float64)
    student = old + moved * torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    ids = torch.randint(vocab, shape[:2], generator=generator)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    return Case(student.requires_grad_(), ids, mask, old, teacher)


def by_hand(rows: Case, policy: PolicyConfig, *, reduction: str) -> tuple[float, float]:
    """Policy and single-step term in plain loops over numbers, as the descriptions have them."""
    q, p, old = (np.exp(each.detach().log_softmax(2).numpy()) for each in (rows.logits, rows.teacher, rows.old))
    lengths, ids = rows.mask.sum(1).tolist(), rows.ids.numpy()
    lmops = policy.mode == "lmops"
    advantages = np.zeros(rows.mask.shape)
    for row, length in enumerate(lengths):
        gaps = [math.log(p[row, at, ids[row, at]] / old[row, at, ids[row, at]]) for at in range(length)]
        scale, limit = (1 / 0.5, 100.0) if lmops else (policy.reward_scale, policy.reward_clip or math.inf)
        rewards = [min(max(scale * gap, -limit), limit) for gap in gaps]
        for at in range(length):
            if lmops:
                total = sum(0.95 ** (later - at) * rewards[later] for later in range(at, length))
                advantages[row, at] = total / (length - at)
            else:
                after = rewards[at + 1 :]
                advantages[row, at] = sum(after) / len(after) if after else 0.0
    if lmops:
        advantages = (advantages - advantages.mean()) / np.sqrt(advantages.var(ddof=1) + 1e-8)
    long = single = 0.0
    for row, length in enumerate(lengths):
        for at in range(length):
            token = ids[row, at]
            w = old[row, at, token] / (ALPHA * p[row, at, token] + (1 - ALPHA) * old[row, at, token])
            ratio = q[row, at, token] / old[row, at, token] * w
            bounded = min(max(ratio, 1 - policy.clip), 1 + policy.clip)
            long -= min(ratio * advantages[row, at], bounded * advantages[row, at])
            single += policy.single_step * float(np.sum(q[row, at] * np.log(q[row, at] / p[row, at])))
    count = sum(lengths) if reduction == "tokens" else len(lengths)
    return long / count, single / count


@pytest.mark.parametrize("policy", [MODES[0], MODES[1], MODES[-1]], ids=["paper", "scaled", "lmops"])
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_the_loss_equals_plain_loops(policy: PolicyConfig, reduction: Any) -> None:
    for seed in range(4):
        rows = case(seed=seed, moved=1.0)
        loss = rows.loss(policy, reduction=reduction)
        assert (loss.policy.item(), loss.single.item()) == pytest.approx(by_hand(rows, policy, reduction=reduction))
        assert loss.total.item() == pytest.approx((loss.policy + loss.single + loss.pretrain).item())
        assert 0.0 < loss.clipped < 1.0
        # What the clip cut has no gradient of the policy term.
        (gradient,) = torch.autograd.grad(loss.policy, rows.logits)
        untouched = (gradient.abs().sum(2) == 0.0)[rows.mask]
        still = (loss.table.advantages[rows.mask] == 0.0).sum()
        assert int(untouched.sum() - still) == round(loss.clipped * int(rows.mask.sum()))


@pytest.mark.parametrize("policy", MODES)
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_padding_enters_nothing(policy: PolicyConfig, reduction: Any) -> None:
    rows = case()
    outside = ~rows.mask
    spoilt = Case(*(each.detach().clone() for each in (rows.logits, rows.ids, rows.mask, rows.old, rows.teacher)))
    spoilt.ids[outside] = -100
    for each in (spoilt.logits, spoilt.old, spoilt.teacher):
        each[outside] = float("nan")
    if policy.mode == "paper":
        # The released code's whitening counts padding, so there the table keeps its shape.
        spoilt = wider(spoilt)
    spoilt.logits.requires_grad_()
    ours, plain = spoilt.loss(policy, reduction=reduction), rows.loss(policy, reduction=reduction)
    assert (ours.total.item(), ours.clipped) == pytest.approx((plain.total.item(), plain.clipped), rel=1e-12)
    (found,), (expected,) = (
        torch.autograd.grad(loss.total, each.logits) for loss, each in ((ours, spoilt), (plain, rows))
    )
    assert float(found[~spoilt.mask].abs().max()) == 0.0
    torch.testing.assert_close(found[spoilt.mask], expected[rows.mask], rtol=1e-12, atol=1e-15)


def wider(rows: Case) -> Case:
    """The same with two more columns and a response of nothing but padding."""

    def grown(table: Tensor, fill: Any) -> Tensor:
        whole = table.new_full((table.shape[0] + 1, table.shape[1] + 2, *table.shape[2:]), fill)
        whole[: table.shape[0], : table.shape[1]] = table
        return whole

    nan = float("nan")
    return Case(
        grown(rows.logits, nan), grown(rows.ids, 10**6), grown(rows.mask, False), grown(rows.old, nan),
        grown(rows.teacher, nan),
    )  # fmt: skip


def test_the_end_token_counts_and_nothing_behind_it() -> None:
    rows = case(lengths=(3, 5))
    table = rows.loss(PolicyConfig(importance="none", length_normalised=False)).table
    gaps = chosen(rows.teacher, rows.ids) - chosen(rows.old, rows.ids)
    assert table.advantages[0, :3].tolist() == pytest.approx([float(gaps[0, 1:3].sum()), float(gaps[0, 2]), 0.0])
    (gradient,) = torch.autograd.grad(rows.loss(PolicyConfig()).single, rows.logits)
    assert (gradient.abs().sum(2) > 0.0).tolist() == rows.mask.tolist()


@pytest.mark.parametrize("policy", MODES)
def test_a_student_that_equals_its_teacher_is_at_rest(policy: PolicyConfig) -> None:
    rows = case(moved=0.0)
    rows.teacher = rows.old
    text = PlainText(rows.logits, rows.ids, torch.zeros_like(rows.mask))
    loss = rows.loss(policy, pretrain=text)
    (gradient,) = torch.autograd.grad(loss.total, rows.logits)
    assert float(loss.table.advantages.abs().max()) == 0.0
    assert loss.total.item() == pytest.approx(0.0, abs=1e-15)
    assert float(gradient.abs().max()) < 1e-15
    assert loss.clipped == 0.0


@pytest.mark.parametrize("policy", [MODES[0], MODES[3], MODES[-1]])
def test_sparse_targets_that_hold_everything_equal_dense_ones(policy: PolicyConfig) -> None:
    rows = case()
    results = []
    for targets in (rows.teacher, SparseTargets.whole(rows.teacher.flatten(0, 1))):
        total = rows.loss(policy, targets=targets).total
        results.append((total, *torch.autograd.grad(total, rows.logits)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def test_at_the_old_weights_ratios_lie_between_zero_and_what_mixing_allows() -> None:
    rows = case(vocab=40, lengths=(60, 60), moved=0.0, seed=3)
    ratios = rows.loss(PolicyConfig()).ratios[rows.mask]
    assert 0.0 <= float(ratios.min()) < 0.5
    assert 1.2 < float(ratios.max()) <= 1.0 / (1.0 - ALPHA) + 1e-12
    assert rows.loss(PolicyConfig(), alpha=0.0).ratios[rows.mask].tolist() == pytest.approx([1.0] * 120)


def test_plain_text_is_averaged_over_its_own_tokens() -> None:
    rows, text = case(), case(seed=9, lengths=(5, 2))
    plain = PlainText(text.logits, text.ids, text.mask, weight=0.5)
    log_q = text.logits.detach().log_softmax(2)
    ce = -float(chosen(text.logits.detach(), text.ids)[text.mask].mean())
    assert rows.loss(PolicyConfig(), pretrain=plain).pretrain.item() == pytest.approx(0.5 * ce)
    taught = PlainText(text.logits, text.ids, text.mask, teacher_logits=text.teacher)
    p = text.teacher.log_softmax(2)
    apart = float((p.exp() * (p - log_q)).sum(2)[text.mask].mean())
    loss = rows.loss(PolicyConfig(mode="lmops"), pretrain=taught)
    assert loss.pretrain.item() == pytest.approx(0.5 * ce + 0.5 * apart)
    assert loss.total.item() == pytest.approx((loss.policy + loss.single + loss.pretrain).item())


@pytest.mark.parametrize("policy", MODES)
def test_the_impossible_costs_a_finite_amount(policy: PolicyConfig) -> None:
    rows = case()
    logits = rows.logits.detach().clone()
    # The student can no longer write this token, the teacher never could write that one, the sampler neither a third.
    logits[0, 1, rows.ids[0, 1]] = float("-inf")
    rows.teacher[2, 2, rows.ids[2, 2]] = float("-inf")
    rows.old[2, 3, rows.ids[2, 3]] = float("-inf")
    rows.logits = logits.requires_grad_()
    top = rows.teacher.flatten(0, 1).log_softmax(1).topk(1)
    tail = torch.log1p(-top.values[:, 0].exp())
    for targets in (rows.teacher, SparseTargets(top.indices, top.values, tail)):
        loss = rows.loss(policy, targets=targets)
        (gradient,) = torch.autograd.grad(loss.total, rows.logits)
        assert math.isfinite(loss.total.item())
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("policy", MODES)
@pytest.mark.parametrize("shape", [(0, 4), (2, 4), (2, 0)])
def test_no_tokens_give_zero_and_zero_gradients(policy: PolicyConfig, shape: tuple[int, int]) -> None:
    logits = torch.randn(*shape, VOCAB, requires_grad=True)
    nothing = torch.full(shape, float("nan"))
    ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    loss = minillm_loss(logits, SampledResponses(ids, mask, nothing, nothing, ALPHA), logits.detach(), policy=policy)
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert loss.total.item() == loss.clipped == float(gradient.abs().sum()) == 0.0
