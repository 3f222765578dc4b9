"""Divergences between a sparse teacher and a student, in nats a position.

A teacher that kept K tokens is a distribution over K + 1 events: each kept token, and the tail (everything else).
The student is folded the same way and the divergence of the two is taken. Every kind is a pure function of the two
tables of event log-probabilities; one entry in `KINDS` adds another, and the fused form takes it from there.

The student's tail is the log-sum-exp of the logits outside the kept ids, never log(1 - sum q): the subtraction loses
all digits exactly where a good student ends up, with little mass in the tail. So there is no log1mexp to guard.

Log-probabilities below `LOG_FLOOR` are raised to it where they are subtracted, on one side only: an event that one
side holds impossible costs a large finite amount, and its gradient vanishes instead of becoming NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from configs.errors import ConfigError
from student_train.targets import SparseTargets

Tail = Literal["bucket", "renormalize"]
Kind = Callable[[Tensor, Tensor], Tensor]

LOG_FLOOR = -87.0
"""About the log of the smallest normal float32."""


def forward_kl(teacher: Float[Tensor, "N E"], student: Float[Tensor, "N E"]) -> Float[Tensor, " N"]:
    """KL(teacher ‖ student) over E events, from log-probabilities."""
    return _expectation(teacher, teacher, student)


def reverse_kl(teacher: Float[Tensor, "N E"], student: Float[Tensor, "N E"]) -> Float[Tensor, " N"]:
    """KL(student ‖ teacher) over E events, from log-probabilities."""
    return _expectation(student, student, teacher)


KINDS: MappingProxyType[str, Kind] = MappingProxyType({"forward_kl": forward_kl, "reverse_kl": reverse_kl})
"""Every divergence by the name it has in a config."""


def divergence(
    kind: str, student_logits: Float[Tensor, "N V"], targets: SparseTargets, *, tail: Tail = "bucket"
) -> Float[Tensor, " N"]:
    """The divergence at each position: the reference form, for tests, analysis and small vocabularies.

    With K = V and a tail of -inf it is the divergence of the whole distributions. Computes in at least float32.

    Raises:
        ConfigError: an unknown kind or tail, or targets that were sampled.
    """
    function = kind_function(kind, targets=targets)
    logits = student_logits if student_logits.dtype == torch.float64 else student_logits.float()
    kept = logits.gather(1, targets.ids)
    rest = guarded_logsumexp(logits.scatter(1, targets.ids, float("-inf")))
    teacher, student = event_logprobs(targets, kept, rest, tail=tail)
    return function(teacher, student)


def kind_function(kind: str, *, targets: SparseTargets) -> Kind:
    """The function of a kind, after checking that it can take these targets.

    Raises:
        ConfigError: an unknown kind, or targets that were sampled.
    """
    if kind not in KINDS:
        raise ConfigError(f"divergence={kind} is unknown: choose one of {', '.join(KINDS)}")
    if targets.counts is not None:
        raise ConfigError(f"divergence={kind} needs log-probabilities, but these targets were sampled")
    return KINDS[kind]


def event_logprobs(
    targets: SparseTargets, kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"], *, tail: Tail
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Teacher and student as log-probabilities over the same events, from the student's logits.

    `kept` are the logits at the teacher's ids, `rest` is the log-sum-exp of all others. `bucket` gives E = K + 1
    events, the last being the tail; `renormalize` gives E = K and forgets the tail on both sides.

    Raises:
        ConfigError: another `tail`.
    """
    known = targets.logprobs.to(kept.dtype)
    if tail == "bucket":
        teacher = torch.cat([known, targets.tail_logmass.to(kept.dtype)[:, None]], dim=1)
        logits = torch.cat([kept, rest[:, None]], dim=1)
        return teacher, logits - guarded_logsumexp(logits)[:, None]
    if tail == "renormalize":
        return known - guarded_logsumexp(known)[:, None], kept - guarded_logsumexp(kept)[:, None]
    raise ConfigError(f"tail={tail} is unknown: choose bucket or renormalize")


def guarded_logsumexp(values: Float[Tensor, "N E"]) -> Float[Tensor, " N"]:
    """Log-sum-exp of each row; a row of nothing but -inf gives -inf with a gradient of zero, not NaN."""
    empty = (values == float("-inf")).all(dim=1, keepdim=True)
    return torch.logsumexp(values.masked_fill(empty, 0.0), dim=1).masked_fill(empty[:, 0], float("-inf"))


def cross_entropy(
    kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"], label_logits: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """-log q(label) at each position, from the same pieces of the logits as `event_logprobs`."""
    return guarded_logsumexp(torch.cat([kept, rest[:, None]], dim=1)) - label_logits


def agreement(
    kept: Float[Tensor, "N K"], best_rest: Float[Tensor, " N"], best: Int64[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """1 where the student's most likely token is column `best` of the kept ids, else 0."""
    chosen = kept.gather(1, best[:, None])[:, 0]
    return ((chosen >= kept.amax(dim=1)) & (chosen > best_rest)).to(kept.dtype)


def _expectation(
    weights: Float[Tensor, "N E"], first: Float[Tensor, "N E"], second: Float[Tensor, "N E"]
) -> Float[Tensor, " N"]:
    """Sum over events of exp(weights) (first - second); impossible events contribute nothing.

    -inf is replaced before any arithmetic: a NaN in the branch that `where` drops would still reach the gradient.
    """
    impossible = weights == float("-inf")
    difference = first.masked_fill(impossible, 0.0).clamp_min(LOG_FLOOR) - second.clamp_min(LOG_FLOOR)
    terms = weights.masked_fill(impossible, 0.0).exp() * difference
    return terms.masked_fill(impossible, 0.0).sum(dim=1)
