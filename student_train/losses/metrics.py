"""What is measured of a student at the positions of a batch, besides its loss.

All of it comes from the three things that a chunk of logits leaves behind: the logits at the kept ids, the log-sum-exp
of all others and the logit of the label. The names stand in the order of `student_train.losses.fused.LossSums.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from student_train.losses.divergences import fold, guarded_logsumexp
from student_train.losses.kinds import forward_kl, reverse_kl
from student_train.losses.targets import SparseTargets

METRICS = (
    "loss",
    "ce",
    "accuracy",
    "divergence",
    "agreement",
    "forward_kl",
    "reverse_kl",
    "teacher_mass",
    "student_tail",
    "policy",
    "clipped",
    "pretrain",
    "patient",
    "cosine",
    "hidden_mse",
    "attention_mse",
    "distance_relation",
    "angle_relation",
)
"""Summed over positions: the trained loss; cross-entropy on the labels; positions whose most likely token is the label;
the trained divergence; positions where student and teacher have the same most likely token; KL(teacher ‖ student) and
KL(student ‖ teacher) over the known tokens and the tail; the teacher's mass on the known tokens; the student's mass
outside them; the policy term; positions where its clip cut the gradient; cross-entropy on plain text, which has no
other metric; what a student of a task learns from inside its teacher, a kind each. What was not given (labels, targets,
terms of sampled tokens) or not trained counts 0."""

POLICY_METRICS = METRICS[: METRICS.index("pretrain")]
"""Those that mean something where the tokens were sampled by a policy that is learned from."""

SCORED_METRICS = METRICS[: METRICS.index("policy")]
"""Those that mean something where the tokens were not sampled by a policy that is learned from."""

TEXT_METRICS = ("loss", "ce", "accuracy")
"""Those that mean something without targets."""

ALIGNED_METRICS = (*TEXT_METRICS, "divergence")
"""Those that mean something where the teacher has another tokenizer."""

DRAWN_METRICS = ("loss", "ce", "accuracy", "divergence", "agreement")
"""Those that mean something where targets were drawn; `agreement` is then with the token drawn most often."""


def means(prefix: str, sums: Sequence[float], *, known: Mapping[str, int]) -> dict[str, float]:
    """Metric sums divided once, each of `known` by its number of positions or decisions, under their tracking names."""
    return {f"{prefix}/{name}": sums[METRICS.index(name)] / places for name, places in known.items()}


def replaced(metrics: Float[Tensor, " M"], **values: Tensor) -> Float[Tensor, " M"]:
    """The sums with some of them, by their names, put in the place of what was there; without a gradient."""
    sums = metrics.clone()
    for name, value in values.items():
        sums[METRICS.index(name)] = value.detach().double()
    return sums


def only(names: Sequence[str], metrics: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """The sums of these names; the others become 0."""
    kept = [METRICS.index(name) for name in names]
    sums = torch.zeros_like(metrics)
    sums[kept] = metrics[kept]
    return sums


def plain_sums(metrics: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Sums over plain text, kept apart from those over responses."""
    sums = torch.zeros_like(metrics)
    sums[METRICS.index("pretrain")] = metrics[METRICS.index("ce")]
    return sums


def cross_entropy(
    kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"], label: Float[Tensor, " N"], *, whole: bool = False
) -> Float[Tensor, " N"]:
    """-log q(label) at each position; `whole` says that there is no rest."""
    if whole:
        return kept.logsumexp(dim=1) - label
    return guarded_logsumexp(torch.cat([kept, rest[:, None]], dim=1)) - label


@torch.no_grad()
def position_metrics(
    kept: Float[Tensor, "N K"],
    rest: Float[Tensor, " N"],
    *,
    best_rest: Float[Tensor, " N"],
    label: Float[Tensor, " N"] | None,
    targets: SparseTargets | None,
) -> dict[str, Float[Tensor, " N"]]:
    """Every metric but loss, ce and divergence that these pieces allow. `best_rest` is the largest other logit."""
    found: dict[str, Tensor] = {}
    best_kept = kept.amax(dim=1)
    if label is not None:
        found["accuracy"] = (label >= torch.maximum(best_kept, best_rest)).to(kept.dtype)
    if targets is None:
        return found
    ranking = targets.logprobs if targets.counts is None else targets.counts
    assert ranking is not None
    best = ranking.argmax(dim=1)
    chosen = kept.gather(1, best[:, None])[:, 0]
    found["agreement"] = ((chosen >= best_kept) & (chosen > best_rest)).to(kept.dtype)
    if targets.counts is None:
        assert targets.logprobs is not None
        events = fold(targets, kept, rest)
        found["forward_kl"], found["reverse_kl"] = forward_kl(events), reverse_kl(events)
        # Nothing lies outside of targets in order, and adding up all of them again would say so slowly.
        found["teacher_mass"] = (
            torch.ones_like(rest) if targets.in_order else targets.logprobs.double().exp().sum(dim=1)
        )
        found["student_tail"] = torch.zeros_like(rest) if targets.in_order else events.student[:, -1].exp()
    return found
