"""What an experiment took and what the cache saved it: hours, joules and money. Arithmetic alone.

A teacher that has a price by the token is paid by the token, any other by the hour of its engines. What else computes,
engines of students and worker groups, is paid by the hour wherever an hour has a price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from configs.budgets import CURRENCY, PriceConfig
from evaluation.results import RunCost, StageCost

BETWEEN = "between the stages"
"""The name of what a run takes that belongs to none of its stages."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of teachers, and GPU seconds: of the teachers' engines, and of all else that computes.

    `paid` is the money of those teachers that are paid by the token, each at a price of its own.
    """

    teacher_tokens: int
    teacher_gpu_seconds: float
    other_gpu_seconds: float = 0.0
    paid: float = 0.0


@dataclass(frozen=True, slots=True)
class Saved:
    """What rows that were in the cache took when they were bought; NaN: nobody counted then.

    `paid` is what those of teachers that are paid by the token would cost now.
    """

    tokens: int
    gpu_seconds: float
    joules: float
    paid: float = 0.0

    def beyond(self, tokens: int) -> Saved:
        """The same without so many of its tokens, which the experiment itself bought in an earlier start."""
        left = max(self.tokens - tokens, 0)
        part = left / self.tokens if self.tokens else 0.0
        return Saved(left, self.gpu_seconds * part, self.joules * part, self.paid * part)

    def plus(self, other: Saved) -> Saved:
        """Both together."""
        return Saved(
            self.tokens + other.tokens,
            self.gpu_seconds + other.gpu_seconds,
            self.joules + other.joules,
            self.paid + other.paid,
        )


NOTHING_SAVED = Saved(0, 0.0, 0.0)


def money(usage: Usage, prices: PriceConfig | None) -> float:
    """What it costs in the currency of prices; without any what is paid by the token, NaN where that is nothing."""
    if prices is None:
        return usage.paid or math.nan
    by_hour = usage.other_gpu_seconds
    by_token = 0.0
    if prices.teacher_million_tokens is None:
        by_hour += usage.teacher_gpu_seconds
    else:
        by_token = prices.teacher_million_tokens * usage.teacher_tokens / 1e6
    by_token += usage.paid
    return by_token if prices.gpu_hour is None else by_token + prices.gpu_hour * by_hour / HOUR_S


def run_cost(
    stages: Sequence[StageCost],
    *,
    total: StageCost,
    energy_source: str,
    usage: Usage,
    saved: Saved,
    prices: PriceConfig | None,
) -> RunCost:
    """The cost of a run whose stages are these, and which took `total` in all."""
    bought = Usage(saved.tokens, saved.gpu_seconds, paid=saved.paid)
    # A run that found all of it in the cache has paid nothing, which is not the same as not to know.
    by_token = prices is None and bool(usage.paid or saved.paid)
    unnamed = CURRENCY if by_token else ""
    return RunCost(
        stages=phases(stages, total=total),
        energy_source=energy_source,
        teacher_tokens=usage.teacher_tokens,
        saved_tokens=saved.tokens,
        teacher_hours=usage.teacher_gpu_seconds / HOUR_S,
        saved_hours=saved.gpu_seconds / HOUR_S,
        saved_joules=saved.joules,
        paid=usage.paid if by_token else money(usage, prices),
        saved=saved.paid if by_token else money(bought, prices),
        currency=unnamed if prices is None else prices.currency,
    )


def phases(stages: Sequence[StageCost], *, total: StageCost) -> tuple[StageCost, ...]:
    """The stages, and what the whole took beside them: together they are the whole.

    A rest below zero is rounding, or the inexactness of the meter, and counts as nothing.
    """
    rest = {
        name: max(getattr(total, name) - math.fsum(getattr(stage, name) for stage in stages), 0.0)
        if math.isfinite(getattr(total, name))
        else math.nan
        for name in ("seconds", "joules", "co2_kg")
    }
    return (*stages, replace(total, name=BETWEEN, **rest))


def whole(cost: RunCost) -> StageCost:
    """All phases together."""
    sums = {name: math.fsum(getattr(s, name) for s in cost.stages) for name in ("seconds", "joules", "co2_kg")}
    return StageCost("together", **sums)


def metrics(cost: RunCost) -> dict[str, float]:
    """The numbers under their names in MLflow, as far as they are known."""
    together = whole(cost)
    found = {
        "cost/seconds": together.seconds,
        "cost/joules": together.joules,
        "cost/co2_kg": together.co2_kg,
        "cost/teacher_tokens": float(cost.teacher_tokens),
        "cost/saved_tokens": float(cost.saved_tokens),
        "cost/teacher_hours": cost.teacher_hours,
        "cost/saved_hours": cost.saved_hours,
        "cost/saved_joules": cost.saved_joules,
        "cost/paid": cost.paid,
        "cost/saved": cost.saved,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}
