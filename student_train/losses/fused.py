"""Losses from hidden states and head in one pass, without a table of positions by vocabulary.

The positions are taken in chunks of rows; `student_train.losses.chunks` says how a chunk's logits become loss and
gradient. Gradients are computed in the forward pass, so the result is a *sum* over positions; the caller scales it as a
whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms
from student_train.losses.chunks import summed_loss
from student_train.losses.divergences import Measure, Tail
from student_train.losses.head import Head, exact_dtype
from student_train.losses.passes import row_sums
from student_train.losses.positions import LossForm, PositionLoss, Positions
from student_train.losses.targets import LiveTargets, SparseTargets


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """The loss summed over positions, with its graph, and the sums named by `metrics.METRICS`, detached, float64."""

    loss: Float[Tensor, ""]
    metrics: Float[Tensor, " M"]


class DivergenceSettings(TypedDict, total=False):
    """Settings of `fused_divergence`, each with the default of a stage: how the divergence is taken and what it counts.

    The others are parameters of the kind.
    """

    tail: Tail
    temperature: float
    weight: float
    ce_weight: float
    beta: float
    alpha: float
    mu: float
    a: float
    b: float


def fused_loss(
    hidden: Float[Tensor, "N H"],
    head: Head | Float[Tensor, "W H"],
    positions: Positions,
    loss: PositionLoss,
    *,
    mask: Bool[Tensor, " N"] | None = None,
) -> LossSums:
    """Any loss of a position, summed over positions: what an objective with a formula of its own calls.

    `head` may be the bare matrix, all of whose rows are tokens. Positions outside `mask` do not exist.

    Raises:
        ModelError: a label or an id outside the student's vocabulary.
    """
    if mask is not None:
        hidden, positions = hidden[mask], positions[mask]
    whole = Head.of(head)
    positions.check_ids(vocab=whole.tokens)
    return LossSums(*summed_loss(hidden, whole, positions, loss))


def fused_divergence(
    kind: str,
    hidden: Float[Tensor, "N H"],
    head: Head | Float[Tensor, "W H"],
    targets: SparseTargets | LiveTargets | Float[Tensor, "N V"],
    *,
    labels: Int64[Tensor, " N"] | None = None,
    mask: Bool[Tensor, " N"] | None = None,
    **settings: Unpack[DivergenceSettings],
) -> LossSums:
    """`weight` x divergence from the teacher + `ce_weight` x cross-entropy on `labels`, summed over positions.

    The divergence is that of `student_train.losses.divergences.divergence` on the logits hidden @ head.T.

    The distributions of live targets are made chunk by chunk, as the student's are.

    Raises:
        ConfigError: as `divergence`, and a `ce_weight` without labels.
        ModelError: an id outside the student's vocabulary, or a teacher at hand with another number of tokens.
    """
    parameters: dict[str, Any] = dict(settings)
    weight, ce_weight = parameters.pop("weight", 1.0), parameters.pop("ce_weight", 0.0)
    tail, temperature = parameters.pop("tail", "bucket"), parameters.pop("temperature", 1.0)
    if ce_weight and labels is None:
        raise ConfigError(f"ce_weight={ce_weight:g} needs labels: give them or set ce_weight: 0")
    measure = Measure.of(kind, tail=tail, temperature=temperature, parameters=parameters)
    form, tokens = LossForm(measure, weight, ce_weight), Head.of(head).tokens
    if isinstance(targets, LiveTargets):
        if targets.head.tokens != tokens:
            raise ModelError(f"the teacher's head is over {targets.head.tokens} tokens and the student's over {tokens}")
        return fused_loss(hidden, head, Positions(None, labels, live=targets), form.rows, mask=mask)
    known = SparseTargets.whole(targets) if isinstance(targets, Tensor) else targets
    measure.check(known if mask is None else known[mask], vocab=tokens)
    return fused_loss(hidden, head, Positions(known, labels), form.rows, mask=mask)


def fused_cross_entropy(
    hidden: Float[Tensor, "N H"],
    head: Head | Float[Tensor, "W H"],
    *,
    labels: Int64[Tensor, " N"],
    targets: SparseTargets | None = None,
    mask: Bool[Tensor, " N"] | None = None,
) -> LossSums:
    """Cross-entropy on `labels`, summed over positions. `targets` are measured, not learned.

    Raises:
        ModelError: a label or an id outside the student's vocabulary.
    """
    return fused_loss(hidden, head, Positions(targets, labels), LossForm(ce_weight=1.0).rows, mask=mask)


def fused_policy(
    hidden: Float[Tensor, "N H"],
    head: Head | Float[Tensor, "W H"],
    targets: SparseTargets,
    *,
    labels: Int64[Tensor, " N"],
    terms: PolicyTerms,
    policy: PolicyConfig,
    mask: Bool[Tensor, " N"] | None = None,
) -> LossSums:
    """MiniLLM on sampled tokens, `labels`: policy term + `policy.single_step` x single-step term, summed.

    The policy term is that of `student_train.losses.minillm.policy_rows`, the other KL(student ‖ teacher) over the
    known tokens and the tail, times `terms.single_weights`.

    Raises:
        ConfigError: targets that were drawn.
        ModelError: a label or an id outside the student's vocabulary.
    """
    measure = Measure.of("reverse_kl", tail="bucket", temperature=1.0, parameters={})
    measure.check(targets if mask is None else targets[mask], vocab=Head.of(head).tokens)
    form = LossForm(measure, policy.single_step, policy=policy)
    return fused_loss(hidden, head, Positions(targets, labels, terms), form.rows, mask=mask)


@torch.no_grad()
def fused_logprobs(
    hidden: Float[Tensor, "N H"], head: Head | Float[Tensor, "W H"], *, labels: Int64[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Log q(label) at each position, in nats and at least float32, without a gradient.

    Raises:
        ModelError: a label outside the student's vocabulary.
    """
    whole = Head.of(head)
    Positions(None, labels).check_ids(vocab=whole.tokens)
    found = torch.empty(len(hidden), dtype=exact_dtype(hidden), device=hidden.device)
    for chunk in whole.chunks(hidden):
        logits = whole.raw_logits(hidden[chunk])
        if whole.softcap is not None:
            logits = logits.div_(whole.softcap).tanh_().mul_(whole.softcap)
        label = logits.gather(1, labels[chunk, None])[:, 0].to(found.dtype)
        if logits.dtype == found.dtype:
            found[chunk] = label - logits.logsumexp(dim=1)
        else:
            _, shift, total = row_sums(logits)
            found[chunk] = label - (total.log() + shift)
    return found
