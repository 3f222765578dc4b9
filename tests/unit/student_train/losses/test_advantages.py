"""Advantages and importance weights by hand, and what is measured of a rollout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTable, PolicyTerms, policy_terms

ALPHA = 0.5
P, Q = [0.2, 0.6, 0.4, 0.2], [0.6, 0.2, 0.4, 0.1]
W = [0.6 / 0.4, 0.2 / 0.4, 1.0, 0.1 / 0.15]
R = [math.log(p / q) for p, q in zip(P, Q, strict=True)]


def table(**settings: Any) -> PolicyTable:
    """One response of four tokens, and one of the first two of them."""
    teacher, old = (torch.tensor([each, [*each[:2], math.nan, math.nan]]).log() for each in (P, Q))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    return policy_terms(teacher, old, mask, alpha=ALPHA, policy=PolicyConfig(**settings))


def check(row: Tensor, expected: list[float]) -> None:
    assert row.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_returns_are_what_comes_after_a_token() -> None:
    plain = table(importance="none", length_normalised=False)
    check(plain.advantages[0], [R[1] + R[2] + R[3], R[2] + R[3], R[3], 0.0])
    check(plain.rows()[1].advantages, [R[1], 0.0])
    check(table().advantages[0], [(R[1] + R[2] + R[3]) / 3, (R[2] + R[3]) / 2, R[3], 0.0])
    check(table(advantage="token").advantages[0], R)
    check(table(advantage="token", reward_scale=2.0, reward_clip=1.5).advantages[0], [-1.5, 1.5, 0.0, 2 * R[3]])
    check(plain.behaviour[0].exp(), [0.4, 0.4, 0.4, 0.15])


def test_importance_weights() -> None:
    whole, sums = math.prod(W), [R[1] + R[2] + R[3], R[2] + R[3], R[3], 0.0]
    up_to = [math.prod(W[: at + 1]) for at in range(4)]
    plain: dict[str, Any] = {"length_normalised": False}
    token = table(importance="token", **plain)
    check(token.advantages[0], [w * after for w, after in zip(W, sums, strict=True)])
    check(token.single_weights[0], [1.0] * 4)
    decision = table(importance="per_decision", **plain)
    weighted = [r * w for r, w in zip(R, up_to, strict=True)]
    check(decision.advantages[0], [sum(weighted[at + 1 :]) for at in range(4)])
    check(decision.single_weights[0], [1.0, *up_to[:3]])
    trajectory = table(importance="trajectory", **plain)
    check(trajectory.advantages[0], [whole * after for after in sums])
    check(trajectory.single_weights[0], [whole] * 4)
    check(trajectory.rows()[1].single_weights, [W[0] * W[1]] * 2)


def test_a_cap_bounds_what_acts_and_is_told() -> None:
    capped = table(importance="per_decision", weight_cap=0.8)
    # Products up to each token: 1.5, 0.75, 0.75, 0.5; the second response ends after two of them.
    check(capped.single_weights[0], [1.0, 0.8, 0.75, 0.75])
    assert capped.statistics()["capped_share"] == pytest.approx(2 / 6)
    assert table(importance="token", weight_cap=2.0).statistics()["capped_share"] == 0.0
    assert table().statistics()["capped_share"] == 0.0


def test_statistics() -> None:
    rewards = torch.tensor(R + R[:2], dtype=torch.float64)
    products = [math.prod(W), W[0] * W[1]]
    expected = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "effective_share": sum(products) ** 2 / sum(each**2 for each in products) / 2,
        "capped_share": 0.0,
    }
    # Neither scaled nor cut: two settings can be compared.
    for settings in ({}, {"reward_scale": 3.0, "reward_clip": 0.1}, {"mode": "lmops"}):
        assert table(**settings).statistics() == pytest.approx(expected, rel=1e-6)
    nothing = policy_terms(*torch.zeros(2, 3, 2), torch.zeros(3, 2).bool(), alpha=0.0, policy=PolicyConfig())
    assert set(nothing.statistics().values()) == {0.0}
    assert [len(row) for row in nothing.rows()] == [0, 0, 0]


def test_a_response_that_no_weight_could_hold_stays_finite() -> None:
    """The teacher holds impossible what the student keeps writing: every token weighs 1 / (1 - alpha)."""
    length = 2000
    shape = (1, length)
    terms = policy_terms(
        torch.full(shape, -math.inf), torch.zeros(shape), torch.ones(shape).bool(), alpha=ALPHA,
        policy=PolicyConfig(importance="per_decision"),
    )  # fmt: skip
    assert 0.9 < terms.statistics()["capped_share"] < 1.0
    assert bool(terms.rows()[0].advantages.float().isfinite().all())


def test_terms_are_cut_and_joined_like_the_tokens_they_belong_to() -> None:
    first, second = table(importance="trajectory").rows()
    joined = PolicyTerms.joined([second, first])
    assert len(joined) == 6
    for name in ("advantages", "behaviour", "single_weights"):
        assert getattr(joined[2:], name).tolist() == getattr(first, name).tolist()
        picked = getattr(joined[torch.arange(6) < 2].to(torch.device("cpu")), name)
        assert picked.tolist() == getattr(second, name).tolist()
    assert len(PolicyTerms.joined([])) == 0
