"""MiniLLM: sequence-level reverse KL, learned from what the student writes (Gu et al. 2024, arXiv 2306.08543).

`minillm_loss` is the reference form on whole logits, for tests, analysis and small vocabularies; training takes
`student_train.losses.fused.fused_policy`. Both share `policy_rows`, the policy term of one token. Where the terms come
from, and why: `student_train.losses.advantages` and docs/objectives.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTable, PolicyTerms, policy_terms
from student_train.losses.divergences import divergence
from student_train.losses.kinds import LARGEST_POWER, LOG_FLOOR
from student_train.losses.targets import SparseTargets

LMOPS_KD_SHARE = 0.5
"""What the authors' released code gives to the teacher's distribution beside the plain text itself."""


@dataclass(frozen=True, slots=True, eq=False)
class SampledResponses:
    """B responses of at most L tokens, sampled from alpha p + (1 - alpha) q_old, and how likely each token was.

    `mask` marks a response up to and including its end token. `old_logprobs` and `teacher_logprobs` are log q_old and
    log p of the sampled tokens, in nats. What lies outside the mask may be anything.
    """

    ids: Int64[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]
    old_logprobs: Float[Tensor, "B L"]
    teacher_logprobs: Float[Tensor, "B L"]
    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class PlainText:
    """Text for L_PT, `logits[:, t]` predicting `ids[:, t]`; its mean over valid tokens counts `weight` times.

    With `teacher_logits` half of it is the forward KL to the teacher, as in the authors' released code.
    """

    logits: Float[Tensor, "P T V"]
    ids: Int64[Tensor, "P T"]
    mask: Bool[Tensor, "P T"]
    weight: float = 1.0
    teacher_logits: Float[Tensor, "P T V"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MinillmLoss:
    """total = policy + single + pretrain, with their graphs, and what they were made of.

    `rows` is policy and single-step term of each position before any reduction, with its graph; `ratios` is
    q_new / b, detached; both are 0 outside the mask. `clipped` is the share of valid tokens whose policy term the clip
    left without a gradient. Advantages and weights are in `table`.
    """

    total: Float[Tensor, ""]
    policy: Float[Tensor, ""]
    single: Float[Tensor, ""]
    pretrain: Float[Tensor, ""]
    rows: Float[Tensor, "B L"]
    ratios: Float[Tensor, "B L"]
    clipped: float
    table: PolicyTable


def minillm_loss(
    student_logits: Float[Tensor, "B L V"],
    sampled: SampledResponses,
    targets: SparseTargets | Float[Tensor, "B L V"],
    *,
    policy: PolicyConfig | None = None,
    reduction: Literal["tokens", "sequences"] = "tokens",
    pretrain: PlainText | None = None,
) -> MinillmLoss:
    """The loss of B sampled responses.

    `targets` is what the teacher believed at all B x L positions, as dense logits or sparse (then the single-step term
    is that of the tail bucket). Positions outside the mask get a gradient of zero. `tokens` divides sums once by the
    number of valid tokens; `sequences` by the number of responses with any, which makes the expectation over responses
    the gradient of the sequence KL.
    """
    policy = PolicyConfig() if policy is None else policy
    mask = sampled.mask
    table = policy_terms(sampled.teacher_logprobs, sampled.old_logprobs, mask, alpha=sampled.alpha, policy=policy)
    logits = student_logits[mask]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logprobs = -cross_entropy(logits, sampled.ids[mask], reduction="none")
    terms = PolicyTerms.joined(table.rows())
    on_policy, clipped = policy_rows(logprobs, terms, policy=policy)
    flat = mask.flatten()
    known = targets.flatten(0, 1)[flat] if isinstance(targets, Tensor) else targets[flat]
    weights = policy.single_step * terms.single_weights.to(logits.dtype)
    single = weights * divergence("reverse_kl", logits, known)
    count = max(1, int((mask if reduction == "tokens" else mask.any(dim=1)).sum()))
    text = _text_loss(pretrain) if pretrain is not None else logits.new_zeros(())

    def laid_out(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return MinillmLoss(
        total=(on_policy.sum() + single.sum()) / count + text,
        policy=on_policy.sum() / count,
        single=single.sum() / count,
        pretrain=text,
        rows=laid_out(on_policy + single),
        ratios=laid_out(_ratios(logprobs.detach(), terms)),
        clipped=float(clipped.sum()) / max(1, len(terms)),
        table=table,
    )


def policy_rows(
    logprobs: Float[Tensor, " N"], terms: PolicyTerms, *, policy: PolicyConfig
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The policy term of each token from `logprobs`, log q_new of the tokens; and 1 where the clip cut its gradient.

    With the clip - min(rho A, clip(rho, 1 - eps, 1 + eps) A), rho = q_new / b, which is the importance weight as well;
    otherwise - A log q_new, whose value means nothing and whose gradient is that of the sampled policy.
    """
    advantages = terms.advantages.to(logprobs.dtype)
    if policy.mode == "paper" and policy.importance != "clip":
        return -advantages * logprobs.clamp_min(LOG_FLOOR), torch.zeros_like(logprobs)
    ratios = _ratios(logprobs, terms)
    low, high = 1.0 - policy.clip, 1.0 + policy.clip
    rows = -torch.minimum(ratios * advantages, ratios.clamp(low, high) * advantages)
    clipped = ((advantages > 0.0) & (ratios > high)) | ((advantages < 0.0) & (ratios < low))
    return rows, clipped.to(logprobs.dtype)


def _ratios(logprobs: Tensor, terms: PolicyTerms) -> Tensor:
    """q_new / b of each token."""
    return (logprobs.clamp_min(LOG_FLOOR) - terms.behaviour.to(logprobs.dtype)).clamp_max(LARGEST_POWER).exp()


def _text_loss(text: PlainText) -> Tensor:
    logits, ids = text.logits[text.mask], text.ids[text.mask]
    rows = cross_entropy(logits, ids, reduction="none")
    if text.teacher_logits is not None:
        apart = divergence("forward_kl", logits, text.teacher_logits[text.mask])
        rows = (1.0 - LMOPS_KD_SHARE) * rows + LMOPS_KD_SHARE * apart
    return text.weight * rows.sum() / max(1, len(ids))
