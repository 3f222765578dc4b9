"""The likelihood of whole stretches of text, compared between a teacher and a student that cut them differently.

A span is a chunk of n tokens of the teacher and m of the student between two common boundaries. Each model gives its
text a probability, the product over its own tokens, and the two are compared as what they are: this text or another, a
distribution over two events (Approximate Likelihood Matching, Minixhofer et al. 2025, arXiv 2503.20083). The student's
probability is that of its own cutting of the text; other cuttings of the same bytes count as another text, on both
sides.

The loss is a function of a sum over positions, while logits are made and dropped chunk by chunk
(`student_train.losses.chunks`). So there are two passes over the spans: one for the log-probabilities, from which
follow the value of each span and its derivative, and one that carries this derivative to the logits of each position.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from student_train.losses.divergences import Measure
from student_train.losses.fused import LossSums, fused_logprobs, fused_loss
from student_train.losses.head import Head
from student_train.losses.metrics import cross_entropy
from student_train.losses.positions import Positions, SpanTerms
from student_train.losses.targets import SparseTargets

CERTAIN = -(2.0**-24)
"""No text is more likely than this, in nats: the resolution of what the cache keeps (`cache.records.TAIL_FLOOR`)."""


def span_divergence(
    kind: str,
    hidden: Float[Tensor, "N H"],
    head: Head,
    *,
    labels: Int64[Tensor, " N"],
    spans: Int64[Tensor, " N"],
    span_logprobs: Float[Tensor, " C"],
    ce_weight: float = 0.0,
    **parameters: float,
) -> LossSums:
    """The divergence of two-way distributions, summed over spans, + `ce_weight` x cross-entropy over all positions.

    `spans` names the span of each position, -1 where it belongs to none; every span has a position. `span_logprobs` are
    the teacher's, in nats.

    Raises:
        ConfigError: an unknown kind, or a parameter that it does not take.
        ModelError: a label outside the student's vocabulary.
    """
    measure = Measure.of(kind, tail="bucket", temperature=1.0, parameters=parameters)
    inside = spans >= 0
    logprobs = fused_logprobs(hidden, head, labels=labels).double()
    sums = span_logprobs.new_zeros(len(span_logprobs)).index_add(0, spans[inside], logprobs[inside])
    with torch.enable_grad():
        said = sums.requires_grad_()
        values = two_way(measure, span_logprobs, said)
        (slopes,) = torch.autograd.grad(values.sum(), said)
    owners = spans.clamp_min(0)
    starts = inside & (spans != torch.cat([spans.new_full((1,), -1), spans[:-1]]))
    terms = SpanTerms(
        values=torch.where(starts, values.detach()[owners], 0.0) if len(values) else torch.zeros_like(logprobs),
        slopes=torch.where(inside, slopes[owners], 0.0) if len(values) else torch.zeros_like(logprobs),
    )

    def rows(positions: Positions, kept: Tensor, rest: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        assert positions.spans is not None and label is not None
        ce = cross_entropy(kept, rest, label)
        # The value of the span, and a term that is zero and has the span's gradient.
        apart = positions.spans.values + positions.spans.slopes * (ce.detach() - ce)
        return {"loss": apart + ce_weight * ce, "divergence": apart, "ce": ce}

    return fused_loss(hidden, head, Positions(None, labels, spans=terms), rows)


def two_way(measure: Measure, teacher: Float[Tensor, " C"], student: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    """The divergence of each pair of log-probabilities, as distributions over the text and everything else."""
    theirs, ours = teacher.clamp_max(CERTAIN), student.clamp_max(CERTAIN)
    targets = SparseTargets(torch.zeros_like(theirs, dtype=torch.int64)[:, None], theirs[:, None], log1mexp(theirs))
    return measure.rows(targets, ours[:, None], log1mexp(ours))


def log1mexp(logprobs: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    """log(1 - exp(x)) for x < 0, by whichever of two forms loses no digits there (Maechler 2012)."""
    near = logprobs > -math.log(2.0)
    # The form that is not taken must not make a NaN of the gradient of the one that is.
    close = torch.where(near, logprobs, -1.0)
    far = torch.where(near, -1.0, logprobs)
    return torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(far)))
