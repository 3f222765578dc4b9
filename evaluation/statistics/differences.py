"""One model's number with its interval, and what sets a model apart from a baseline on the same examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evaluation.metric import Better, Measured
from evaluation.statistics.intervals import Interval, bootstrap_interval, difference_interval, never_seen_in
from evaluation.statistics.multiple import holm
from evaluation.statistics.permutation import permutation_p
from evaluation.statistics.power import ALPHA, detectable_difference, detectable_rate
from evaluation.statistics.resampling import Resampling, bootstrap_values, finished, left_out_values

Verdict = Literal["better", "worse", "no difference seen", "undefined"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One model's metric over `n` examples with its 95 % interval; NaN where undefined."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A model against a baseline on the same `n` examples, of which `differing` have another row.

    `estimate` is model - baseline, from `low` to `high` with 95 % (of this one difference), `relative` the same as a
    fraction of the baseline's value. `p` is of the paired permutation test, `p_holm` after Holm's correction over the
    models of the table, and the verdict follows it. `detectable` is the size from which a difference would be seen
    with probability 0.8 at alpha = 0.05. `undefined` is the fraction of bootstrap draws without a number. NaN is what
    cannot be said: then `verdict` is "undefined".
    """

    metric: str
    estimate: float
    low: float
    high: float
    relative: float
    p: float
    p_holm: float
    n: int
    differing: int
    detectable: float
    undefined: float
    verdict: Verdict


def estimate(measured: Measured, how: Resampling | None = None) -> Estimate:
    """The metric over all examples with its interval.

    A fraction of exactly 0 or 1 does not vary in any draw: its bound is what a rate that was never seen may still be.
    """
    values = bootstrap_values([measured], how or Resampling())[:, 0]
    n = len(measured.sums)
    value = _total(measured)
    if measured.metric.unit == "fraction" and value in (0.0, 1.0) and bool(np.all(values == value)):
        reach = never_seen_in(n)
        low, high = (0.0, reach) if value == 0.0 else (1.0 - reach, 1.0)
        return Estimate(value, Interval(low, high, "exact", 0.0), n)
    return Estimate(value, bootstrap_interval(value, values, left_out_values(measured)), n)


def compare_models(
    baseline: Measured, models: Mapping[str, Measured], how: Resampling | None = None
) -> dict[str, Difference]:
    """Each model of a table against one baseline; Holm's correction is over those that could be tested.

    Raises:
        ValueError: a model was measured in another metric or on other examples.
    """
    return compare_pairs({name: (baseline, model) for name, model in models.items()}, how)


def compare_pairs(
    pairs: Mapping[str, tuple[Measured, Measured]], how: Resampling | None = None
) -> dict[str, Difference]:
    """The same where every model of the table has a baseline of its own: (baseline, model) by name.

    Raises:
        ValueError: the two were measured in different metrics or on different examples.
    """
    for name, (baseline, model) in pairs.items():
        if model.metric.name != baseline.metric.name or model.sums.shape != baseline.sums.shape:
            raise ValueError(
                f"{name}: {model.metric.name} on {len(model.sums)} examples cannot be compared with "
                f"{baseline.metric.name} on {len(baseline.sums)}"
            )
    found = {name: _difference(baseline, model, how or Resampling()) for name, (baseline, model) in pairs.items()}
    adjusted = holm([difference.p for difference in found.values()])
    return {
        name: replace(difference, p_holm=p, verdict=_verdict(difference, p, pairs[name][1].metric.better))
        for (name, difference), p in zip(found.items(), adjusted, strict=True)
    }


def _difference(baseline: Measured, model: Measured, how: Resampling) -> Difference:
    values = bootstrap_values([baseline, model], how)
    draws = values[:, 1] - values[:, 0]
    before, after = _total(baseline), _total(model)
    n = len(model.sums)
    differing = int(np.count_nonzero(np.any(model.sums != baseline.sums, axis=1)))
    interval = difference_interval(draws, n)
    detectable = math.nan if interval.method == "none" else detectable_difference(float(np.nanstd(draws, ddof=1)))
    if differing == 0 and model.metric.unit == "fraction" and not math.isnan(before):
        reach = never_seen_in(n)
        interval, detectable = Interval(-reach, reach, "exact", interval.undefined), detectable_rate(n)
    return Difference(
        metric=model.metric.name,
        estimate=after - before,
        low=interval.low,
        high=interval.high,
        relative=(after - before) / abs(before) if before else math.nan,
        p=permutation_p(baseline, model, how),
        p_holm=math.nan,
        n=n,
        differing=differing,
        detectable=detectable,
        undefined=interval.undefined,
        verdict="undefined",
    )


def _verdict(difference: Difference, p_holm: float, better: Better) -> Verdict:
    if math.isnan(p_holm):
        return "undefined"
    if p_holm >= ALPHA:
        return "no difference seen"
    return "better" if (difference.estimate > 0) == (better == "higher") else "worse"


def _total(measured: Measured) -> float:
    return float(finished(measured.metric, measured.sums.sum(axis=0)))
