"""The kinds of divergence between a teacher p and a student q, in nats a position.

Each is a pure function of two tables of log-probabilities over the same events. One more entry in `KINDS` adds another:
the reference form and the fused form both take it from there. Formulas, sources and advice: docs/objectives.md.
Parameters, their ranges and defaults are those of the configuration (`configs.divergences`), written nowhere else.

Log-probabilities below `LOG_FLOOR` are raised to it where they are subtracted, on one side only: an event that one
side holds impossible costs a large finite amount, and its gradient vanishes instead of becoming NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from configs.divergences import Divergence
from configs.errors import ConfigError

LOG_FLOOR = -87.0
"""About the log of the smallest normal float32."""

LARGEST_POWER = 60.0
"""Log of the most that a negative power of a probability may reach; sums over any vocabulary stay finite in float32."""

TVD_ROUNDING = 32.0
"""In units of the last place: what the exponential of a log-probability of about -30 may be off."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Two distributions over the same E events, as log-probabilities in nats; -inf is an impossible event.

    The first `tokens` events are single tokens. One more, where there is one, is everything else taken together.
    """

    teacher: Float[Tensor, "N E"]
    student: Float[Tensor, "N E"]
    tokens: int


Kind = Callable[[Events], Tensor]


def forward_kl(events: Events) -> Float[Tensor, " N"]:
    """KL(p ‖ q) = sum p log(p / q) (Hinton et al. 2015, arXiv 1503.02531)."""
    return _expectation(events.teacher, events.teacher, events.student)


def reverse_kl(events: Events) -> Float[Tensor, " N"]:
    """KL(q ‖ p) = sum q log(q / p) (Gu et al. 2024, arXiv 2306.08543)."""
    return _expectation(events.student, events.student, events.teacher)


def skew_kl(events: Events, *, alpha: float) -> Float[Tensor, " N"]:
    """KL(p ‖ alpha p + (1 - alpha) q) (DistiLLM, Ko et al. 2024, arXiv 2402.03898)."""
    return _kl_to_mixture(events.teacher, events.student, share=alpha)


def skew_reverse_kl(events: Events, *, alpha: float) -> Float[Tensor, " N"]:
    """KL(q ‖ (1 - alpha) p + alpha q) (DistiLLM)."""
    return _kl_to_mixture(events.student, events.teacher, share=alpha)


def jsd(events: Events, *, beta: float) -> Float[Tensor, " N"]:
    """Generalised Jensen-Shannon divergence (GKD, Agarwal et al. 2024, arXiv 2306.13649).

    beta KL(p ‖ m) + (1 - beta) KL(q ‖ m), m = beta p + (1 - beta) q: beta is the teacher's weight. It tends to 0 as
    beta tends to 0 or 1.
    """
    teacher = _kl_to_mixture(events.teacher, events.student, share=beta)
    return beta * teacher + (1.0 - beta) * _kl_to_mixture(events.student, events.teacher, share=1.0 - beta)


def tvd(events: Events) -> Float[Tensor, " N"]:
    """Total variation distance, 1/2 sum |p - q| (for distillation: Wen et al. 2023, arXiv 2307.15190)."""
    teacher = events.teacher.exp()
    gaps = teacher - events.student.exp()
    # A gap of mere rounding has no sign worth following: where both agree, the gradient is zero.
    agreed = gaps.abs() <= TVD_ROUNDING * torch.finfo(gaps.dtype).eps * teacher
    return 0.5 * gaps.masked_fill(agreed, 0.0).abs().sum(dim=1)


def adaptive_kl(events: Events, *, mu: float) -> Float[Tensor, " N"]:
    """h/(h+t) KL(p ‖ q) + t/(h+t) KL(q ‖ p) (AKL, Wu et al. 2024, arXiv 2404.02657).

    h and t are sum |p - q| over the head and over the rest; they are weights, not differentiated, and half each where
    both are 0. The head is the most likely tokens of the teacher while their probabilities add up to at most `mu`, and
    always the first one.
    """
    head = _head_share(events, mu=mu)
    return head * forward_kl(events) + (1.0 - head) * reverse_kl(events)


def alpha_beta(events: Events, *, a: float, b: float) -> Float[Tensor, " N"]:
    """-1/(ab) sum [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)] (ABKD, Wang et al. 2025, arXiv 2505.04560).

    (1, 0) and (0, 1) are its limits, forward and reverse KL.
    """
    if b == 0.0:
        return forward_kl(events)
    if a == 0.0:
        return reverse_kl(events)
    both = _power(events.teacher, a, events.student, b)
    teacher = _power(events.teacher, a + b, events.student, 0.0)
    student = _power(events.teacher, 0.0, events.student, a + b)
    terms = both - a / (a + b) * teacher - b / (a + b) * student
    nowhere = (events.teacher == -math.inf) & (events.student == -math.inf)
    return terms.masked_fill(nowhere, 0.0).sum(dim=1) / (-a * b)


KINDS: MappingProxyType[str, Callable[..., Tensor]] = MappingProxyType(
    {
        function.__name__: function
        for function in (forward_kl, reverse_kl, jsd, skew_kl, skew_reverse_kl, tvd, adaptive_kl, alpha_beta)
    }
)
"""Every divergence by the name it has in a config."""

_SCHEMA: TypeAdapter[Divergence] = TypeAdapter(Divergence)


def complete(kind: str, parameters: Mapping[str, float]) -> Mapping[str, float]:
    """All parameters of a kind: those given, and the defaults of the configuration for the others.

    Raises:
        ConfigError: an unknown kind, a parameter that it does not take or that is out of range.
    """
    if kind not in KINDS:
        raise ConfigError(f"divergence={kind} is unknown: choose one of {', '.join(KINDS)}")
    try:
        block = _SCHEMA.validate_python({"kind": kind, **parameters})
    except ValidationError as error:
        reasons = "; ".join(_reason(str(each["loc"][-1]), each["type"], each["msg"]) for each in error.errors())
        given = ", ".join(f"{name}={value:g}" for name, value in parameters.items())
        raise ConfigError(f"divergence={kind} with {given}: {reasons}") from None
    return block.model_dump(exclude={"kind"})


def bound(kind: str, parameters: Mapping[str, float]) -> Kind:
    """The function of a kind with all of its parameters, as `complete` gives them."""
    return partial(KINDS[kind], **parameters)


def _reason(name: str, error: str, message: str) -> str:
    if error == "extra_forbidden":
        return f"it takes no {name}: remove it"
    return message.removeprefix("Value error, ") if error == "value_error" else f"{name}: {message}"


def _expectation(
    weights: Float[Tensor, "N E"], first: Float[Tensor, "N E"], second: Float[Tensor, "N E"]
) -> Float[Tensor, " N"]:
    """Sum over events of exp(weights) (first - second); impossible events contribute nothing.

    Raised to the floor before any arithmetic, -inf meets a weight of zero as a number, and has no gradient. Tables may
    hold whole vocabularies: no pass over one is made that this does not need.
    """
    return (weights.exp() * (first.clamp_min(LOG_FLOOR) - second.clamp_min(LOG_FLOOR))).sum(dim=1)


def _kl_to_mixture(first: Float[Tensor, "N E"], second: Float[Tensor, "N E"], *, share: float) -> Float[Tensor, " N"]:
    """KL(first ‖ share x first + (1 - share) x second), with `share` in [0, 1)."""
    mixture = second
    if share > 0.0:
        # Raised to the floor before they are mixed: the gradient of logaddexp at twice -inf is NaN.
        mixture = torch.logaddexp(
            first.clamp_min(LOG_FLOOR) + math.log(share), second.clamp_min(LOG_FLOOR) + math.log1p(-share)
        )
    return _expectation(first, first, mixture)


def _power(first: Float[Tensor, "N E"], a: float, second: Float[Tensor, "N E"], b: float) -> Float[Tensor, "N E"]:
    """first^a second^b of each event. An impossible event is 0 to a positive power, large and finite to a negative."""
    zero = ((first == -math.inf) & (a > 0.0)) | ((second == -math.inf) & (b > 0.0))
    exponent = a * first.clamp_min(LOG_FLOOR) + b * second.clamp_min(LOG_FLOOR)
    return exponent.clamp_max(LARGEST_POWER).exp().masked_fill(zero, 0.0)


@torch.no_grad()
def _head_share(events: Events, *, mu: float) -> Float[Tensor, " N"]:
    """The weight h / (h + t) of `adaptive_kl`. What is not a single token always belongs to the rest."""
    teacher = events.teacher.exp()
    gaps = (teacher - events.student.exp()).abs()
    tokens, token_gaps = teacher[:, : events.tokens], gaps[:, : events.tokens]
    # Of equally likely tokens the one with the larger gap comes first: their place in the vocabulary decides nothing.
    by_gap = token_gaps.argsort(dim=1, descending=True)
    order = by_gap.gather(1, tokens.gather(1, by_gap).argsort(dim=1, descending=True, stable=True))
    inside = tokens.gather(1, order).cumsum(dim=1, dtype=torch.float64) <= mu
    inside[:, 0] = True
    head = token_gaps.gather(1, order).masked_fill(~inside, 0.0).sum(dim=1)
    whole = gaps.sum(dim=1)
    return torch.where(whole > 0.0, head / whole, 0.5).clamp_max(1.0)
