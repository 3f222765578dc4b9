"""Divergences between what the teacher said and a student's logits, in nats a position.

A teacher that kept K tokens is a distribution over K + 1 events: each kept token, and the tail (everything else).
The student is folded the same way and the divergence of the two is taken (`student_train.losses.kinds`).

The student's tail is the log-sum-exp of the logits outside the kept ids, never log(1 - sum q): the subtraction loses
all digits exactly where a good student ends up, with little mass in the tail. So no log(1 - x) has to be guarded.

Draws are different: their frequencies estimate every probability of the teacher without bias, so the forward KL,
which is linear in them, and its gradient are estimated without bias too; no other kind is (Anshumann et al. 2025,
arXiv 2503.16870).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from configs.errors import ConfigError
from student_train.losses.kinds import LOG_FLOOR, Events, Kind, bound, complete
from student_train.losses.targets import SparseTargets

Tail = Literal["bucket", "renormalize"]


def divergence(
    kind: str,
    student_logits: Float[Tensor, "N V"],
    targets: SparseTargets | Float[Tensor, "N V"],
    *,
    tail: Tail = "bucket",
    temperature: float = 1.0,
    mask: Bool[Tensor, " N"] | None = None,
    **parameters: float,
) -> Float[Tensor, " N"]:
    """The divergence at each position: the reference form, for tests, analysis and small vocabularies.

    `targets` may be the dense logits of a teacher. Positions that `mask` leaves out are exactly 0 with a gradient of
    zero, whatever they hold. `temperature` softens both sides; nothing is multiplied by its square. `parameters` are
    those of the kind in the configuration: beta, alpha, mu, a and b. Computes in at least float32.

    Targets that were drawn have a forward KL alone. With log-probabilities it is sum_i c_i/n (log p_i - log q_i);
    without, it lacks the teacher's entropy and is the cross-entropy sum_i c_i/n (-log q_i), with the same gradient.

    Raises:
        ConfigError: an unknown kind or tail, a parameter that the kind does not take or that is out of range, or
            targets from which this divergence cannot be had.
    """
    measure = Measure.of(kind, tail=tail, temperature=temperature, parameters=parameters)
    logits = student_logits if mask is None else student_logits[mask]
    known = targets if mask is None else targets[mask]
    if isinstance(known, Tensor):
        known = SparseTargets.whole(known)
    measure.check(known, vocab=logits.shape[1])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    kept = logits.gather(1, known.ids)
    rest = guarded_logsumexp(logits.scatter(1, known.ids, float("-inf")))
    rows = measure.rows(known, kept, rest)
    return rows if mask is None else rows.new_zeros(mask.shape).masked_scatter(mask, rows)


@dataclass(frozen=True, slots=True)
class Measure:
    """A divergence with all that defines it; `function` is the kind with its parameters."""

    kind: str
    function: Kind
    tail: Tail
    temperature: float
    mu: float | None

    @classmethod
    def of(cls, kind: str, *, tail: Tail, temperature: float, parameters: dict[str, float]) -> Measure:
        """The divergence of these settings, with the configuration's defaults for parameters that are not given.

        Raises:
            ConfigError: an unknown kind or tail, a parameter that the kind does not take or that is out of range.
        """
        whole = complete(kind, parameters)
        if tail not in get_args(Tail):
            raise ConfigError(f"tail={tail} is unknown: choose bucket or renormalize")
        if not temperature > 0.0:
            raise ConfigError(f"temperature={temperature:g} must be more than 0")
        return cls(kind, bound(kind, whole), tail, temperature, whole.get("mu"))

    def check(self, targets: SparseTargets, *, vocab: int) -> None:
        """Refuse targets from which this divergence cannot be had, for a student of `vocab` tokens.

        Raises:
            ConfigError: draws with anything but the plain forward KL, a temperature with a part of the distribution,
                or adaptive_kl with less of the teacher's mass than its head may hold.
        """
        if targets.counts is not None:
            plain = (self.kind, self.tail, self.temperature) == ("forward_kl", "bucket", 1.0)
            if not plain:
                raise ConfigError(
                    f"divergence={self.kind}, tail={self.tail}, temperature={self.temperature:g}: these targets were "
                    "drawn by sampling, which allows forward_kl, bucket and 1 alone"
                )
        elif len(targets) and self.tail == "bucket":
            if self.temperature != 1.0 and targets.k < vocab:
                raise ConfigError(
                    f"temperature={self.temperature:g} needs the whole distribution, but k={targets.k} of {vocab} "
                    "tokens are known: set temperature: 1.0 or tail: renormalize"
                )
            if self.mu is not None:
                _check_mass(targets, mu=self.mu)

    def rows(
        self, targets: SparseTargets, kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The divergence at each position, from the student's logits.

        `kept` are the logits at the targets' ids, `rest` is the log-sum-exp of all others.
        """
        if targets.counts is not None:
            return _from_draws(targets, kept, rest)
        return self.function(fold(targets, kept, rest, tail=self.tail, temperature=self.temperature))


def fold(
    targets: SparseTargets,
    kept: Float[Tensor, "N K"],
    rest: Float[Tensor, " N"],
    *,
    tail: Tail = "bucket",
    temperature: float = 1.0,
) -> Events:
    """Scored targets and the student's logits as distributions over the same events; `kept`, `rest`: `Measure.rows`.

    `bucket` gives E = K + 1 events, the last being the tail; `renormalize` gives E = K and forgets the tail on both
    sides. A softened bucket is right only where it is empty (K = V), which `Measure.check` sees to. Of targets in order
    there is no tail, and E = K.
    """
    assert targets.logprobs is not None and targets.tail_logmass is not None
    if targets.in_order:
        return _whole(targets.logprobs.to(kept.dtype), kept, temperature=temperature)
    if targets.padding is not None:
        kept, rest = without_padding(targets.padding, kept, rest)
    teacher, student = targets.logprobs.to(kept.dtype), kept
    if tail == "bucket":
        teacher = torch.cat([teacher, targets.tail_logmass.to(kept.dtype)[:, None]], dim=1)
        student = torch.cat([kept, rest[:, None]], dim=1)
    # Head and tail of the teacher add up to one as they are; only what is cut or softened is normalised anew.
    if tail == "renormalize" or temperature != 1.0:
        teacher = _normalised(teacher / temperature)
    return Events(teacher, _normalised(student / temperature), tokens=targets.k)


def _whole(teacher: Float[Tensor, "N V"], student: Float[Tensor, "N V"], *, temperature: float) -> Events:
    """Whole distributions, in as few passes over their tables as there have to be."""
    if temperature != 1.0:
        teacher, student = (teacher / temperature).log_softmax(dim=1), student / temperature
    return Events(teacher, student.log_softmax(dim=1), tokens=teacher.shape[1])


def guarded_logsumexp(values: Float[Tensor, "N E"]) -> Float[Tensor, " N"]:
    """Log-sum-exp of each row; a row of nothing but -inf gives -inf with a gradient of zero, not NaN."""
    empty = (values == float("-inf")).all(dim=1, keepdim=True)
    return torch.logsumexp(values.masked_fill(empty, 0.0), dim=1).masked_fill(empty[:, 0], float("-inf"))


def without_padding(
    padding: Bool[Tensor, "N K"], kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"]
) -> tuple[Float[Tensor, "N K"], Float[Tensor, " N"]]:
    """The student's logits with those of padding among the rest."""
    gone = kept.masked_fill(~padding, float("-inf"))
    return kept.masked_fill(padding, float("-inf")), guarded_logsumexp(torch.cat([gone, rest[:, None]], dim=1))


def _normalised(values: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """Log-probabilities from unnormalised ones; a row of nothing but -inf stays as it is."""
    total = guarded_logsumexp(values)[:, None]
    return values - total.masked_fill(total == float("-inf"), 0.0)


def _from_draws(targets: SparseTargets, kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The estimate of the forward KL from draws, without the teacher's entropy where log-probabilities are unknown."""
    assert targets.counts is not None
    counts = targets.counts.to(kept.dtype)
    student = kept - guarded_logsumexp(torch.cat([kept, rest[:, None]], dim=1))[:, None]
    costs = -student.clamp_min(LOG_FLOOR)
    if targets.logprobs is not None:
        costs = costs + targets.logprobs.to(kept.dtype).clamp_min(LOG_FLOOR)
    return (counts / counts.sum(dim=1, keepdim=True).clamp_min(1.0) * costs).sum(dim=1)


def _check_mass(targets: SparseTargets, *, mu: float) -> None:
    assert targets.logprobs is not None and targets.tail_logmass is not None
    mass = targets.logprobs.exp().sum(dim=1)
    short = (mass < mu) & (targets.tail_logmass > float("-inf"))
    if bool(short.any()):
        raise ConfigError(
            f"divergence=adaptive_kl needs a mass of mu={mu:g} among the k={targets.k} known tokens, but "
            f"{int(short.sum())} of {len(targets)} positions hold less, the least {float(mass.min()):.3g}: lower mu or "
            "ask the teacher for a larger k"
        )
