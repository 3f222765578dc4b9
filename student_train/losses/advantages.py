"""What is known about sampled tokens before the student learns from them: advantages and importance weights.

p is the teacher, q_old the student whose tokens were sampled, b = alpha p + (1 - alpha) q_old in probability space the
policy that they came from, w = q_old / b. The reward of a token is r = log p - log q_old in nats. The gradient of the
sequence-level KL(q ‖ p) is that of the single-step KL at every prefix, minus, for every token, the rewards *after* it
times the gradient of log q (Gu et al. 2024, arXiv 2306.08543, section 2.2; the reward of the token itself is in the
single-step term). Everything here is float64 and nothing of it is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from configs.rollouts import PolicyConfig
from student_train.losses.kinds import LARGEST_POWER, LOG_FLOOR

LMOPS_DISCOUNT, LMOPS_REWARD_SCALE, LMOPS_REWARD_CLIP = 0.95, 2.0, 100.0
"""Settings of the authors' released code, github.com/microsoft/LMOps (it divides rewards by 0.5)."""

_WHITENING_FLOOR = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class PolicyTerms:
    """What is known about N sampled tokens.

    `advantages` is the coefficient of the policy term, importance weights included unless those are the clip's own;
    `behaviour` is log b of the token, in nats; `single_weights` is the weight of the single-step term.
    """

    advantages: Float[Tensor, " N"]
    behaviour: Float[Tensor, " N"]
    single_weights: Float[Tensor, " N"]

    @classmethod
    def joined(cls, parts: Sequence[PolicyTerms]) -> PolicyTerms:
        """Several stretches of tokens behind each other; none give an empty one."""
        columns = zip(*((part.advantages, part.behaviour, part.single_weights) for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns)) if parts else cls(*[torch.empty(0).double()] * 3)

    def __len__(self) -> int:
        return int(self.advantages.shape[0])

    def __getitem__(self, rows: slice | Bool[Tensor, " N"]) -> PolicyTerms:
        """Some of the tokens; a slice makes no copy."""
        return PolicyTerms(self.advantages[rows], self.behaviour[rows], self.single_weights[rows])

    def to(self, device: torch.device) -> PolicyTerms:
        """The same on another device."""
        return PolicyTerms(self.advantages.to(device), self.behaviour.to(device), self.single_weights.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class PolicyTable:
    """The terms of B responses of at most L tokens, and what they were made of.

    `log_weights` is log w of each token, `capped` where an importance weight that acts was cut. What lies outside
    `mask` means nothing.
    """

    mask: Bool[Tensor, "B L"]
    advantages: Float[Tensor, "B L"]
    behaviour: Float[Tensor, "B L"]
    single_weights: Float[Tensor, "B L"]
    gaps: Float[Tensor, "B L"]
    log_weights: Float[Tensor, "B L"]
    capped: Bool[Tensor, "B L"]

    def rows(self) -> list[PolicyTerms]:
        """The terms of each response."""
        tables = (self.advantages, self.behaviour, self.single_weights)
        return [PolicyTerms(*(table[row][valid] for table in tables)) for row, valid in enumerate(self.mask)]

    def statistics(self) -> dict[str, float]:
        """Whether a rollout is worth learning from, in numbers; all are 0 where there are no tokens.

        `reward` and `reward_std` are mean and standard deviation of log p - log q_old a token, in nats, neither scaled
        nor cut. `effective_share` is the effective number of sequences when each is weighted by its whole product of w,
        (sum w)^2 / sum w^2, as a share of them. `capped_share` is the share of tokens with a cut importance weight.
        """
        gaps = self.gaps[self.mask]
        products = self.log_weights.sum(dim=1)[self.mask.any(dim=1)]
        if not len(gaps):
            return dict.fromkeys(("reward", "reward_std", "effective_share", "capped_share"), 0.0)
        effective = (2.0 * products.logsumexp(dim=0) - (2.0 * products).logsumexp(dim=0)).exp()
        return {
            "reward": float(gaps.mean()),
            "reward_std": float(gaps.std(correction=0)),
            "effective_share": float(effective) / len(products),
            "capped_share": float(self.capped[self.mask].double().mean()),
        }


@torch.no_grad()
def policy_terms(
    teacher_logprobs: Float[Tensor, "B L"],
    old_logprobs: Float[Tensor, "B L"],
    mask: Bool[Tensor, "B L"],
    *,
    alpha: float,
    policy: PolicyConfig,
) -> PolicyTable:
    """The terms of sampled responses, from what teacher and sampling student gave each token, in nats.

    `alpha` is the teacher's share of the policy that they were sampled from. Positions outside `mask`, before, between
    or behind the response, may hold anything. The whitening of `lmops` goes over the whole table, padding included as
    zeros, so there the result depends on which responses share it; otherwise each row stands alone.
    """
    teacher, old = (_known(table, mask) for table in (teacher_logprobs, old_logprobs))
    behaviour = old
    if alpha > 0.0:
        behaviour = torch.logaddexp(teacher + math.log(alpha), old + math.log1p(-alpha))
    gaps = teacher - old
    log_weights = (old - behaviour).masked_fill(~mask, 0.0)
    if policy.mode == "lmops":
        ones = torch.ones_like(gaps)
        advantages, capped = _lmops_advantages(gaps, mask), torch.zeros_like(mask)
        return PolicyTable(mask, advantages, behaviour, ones, gaps, log_weights, capped)
    rewards = policy.reward_scale * gaps
    if policy.reward_clip is not None:
        rewards = rewards.clamp(-policy.reward_clip, policy.reward_clip)
    on_rewards, on_returns, on_single, capped = _importance(log_weights, policy=policy)
    advantages = on_rewards * rewards
    if policy.advantage == "return":
        advantages = _later(advantages)
        if policy.length_normalised:
            advantages = advantages / _later(mask.double()).clamp_min(1.0)
    return PolicyTable(mask, on_returns * advantages, behaviour, on_single, gaps, log_weights, capped)


def _known(table: Tensor, mask: Tensor) -> Tensor:
    return table.double().masked_fill(~mask, 0.0).clamp_min(LOG_FLOOR)


def _later(values: Tensor) -> Tensor:
    """The sum of what comes after each position of a row; no difference of sums, which would lose small ones."""
    onwards = _onwards(values)
    return torch.cat([onwards[:, 1:], torch.zeros_like(onwards[:, :1])], dim=1)


def _onwards(values: Tensor) -> Tensor:
    """The sum of each position of a row and what comes after it."""
    return values.flip(1).cumsum(dim=1).flip(1)


def _importance(log_weights: Tensor, *, policy: PolicyConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of a token's reward, of what is summed up behind a token and of its single-step term; where they are cut.

    Without a cap of their own weights are cut where float32 could not hold them.
    """
    ones = torch.ones_like(log_weights)
    match policy.importance:
        case "token":
            logs = log_weights
        case "per_decision":
            logs = log_weights.cumsum(dim=1)
        case "trajectory":
            logs = log_weights.sum(dim=1, keepdim=True).expand_as(log_weights)
        case _:
            logs = torch.zeros_like(log_weights)
    limit = LARGEST_POWER if policy.weight_cap is None else math.log(policy.weight_cap)
    capped, weights = logs > limit, logs.clamp_max(limit).exp()
    if policy.importance == "per_decision":
        return weights, ones, torch.cat([ones[:, :1], weights[:, :-1]], dim=1), capped
    return ones, weights, weights if policy.importance == "trajectory" else ones, capped


def _lmops_advantages(gaps: Tensor, mask: Tensor) -> Tensor:
    """Discounted rewards from each token on, a token's own included, by the tokens left, then whitened."""
    rewards = (LMOPS_REWARD_SCALE * gaps).clamp(-LMOPS_REWARD_CLIP, LMOPS_REWARD_CLIP)
    total = rewards.new_zeros(len(rewards))
    returns = torch.zeros_like(rewards)
    for at in reversed(range(rewards.shape[1])):
        total = rewards[:, at] + LMOPS_DISCOUNT * total
        returns[:, at] = total
    table = returns / _onwards(mask.double()).clamp_min(1.0)
    centred = table - table.sum() / max(1, table.numel())
    variance = centred.square().sum() / max(1, table.numel() - 1)
    return centred * torch.rsqrt(variance + _WHITENING_FLOOR)
