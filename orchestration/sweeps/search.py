"""Which values are tried next. A thin layer over Optuna: ask, tell, and go on from what a killed sweep had found.

Optuna and not Ray Tune, because a trial here is an experiment with artifacts, claims and a run directory of its own:
what resumes it, places it and keeps it alive is there already, and what is missing is only the next set of values
(docs/decisions/0023-sweeps.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from pydantic import JsonValue

from configs.sweep import Range, SweepConfig
from orchestration.sweeps.space import Values, grid

STARTUP = 5
"""Trials that TPE draws before it looks at what they gave; Optuna's own 10 is most of a small sweep."""

SEEDS_APART = 10_007
"""So that two sweeps of neighbouring seeds share no trial."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """The values of a sweep, one trial after the other; several may be under way."""

    def __init__(self, sweep: SweepConfig) -> None:
        self._sweep = sweep
        self._axes = {key: _axis(values) for key, values in sweep.space.items()}
        self._study = optuna.create_study(direction="minimize")
        self._asked: dict[int, optuna.Trial] = {}
        self._combinations: list[Values] | None = [*grid(sweep)] if sweep.search == "grid" else None
        self.trials: int = sweep.trials or 0 if self._combinations is None else len(self._combinations)
        """How many trials the sweep has."""

    def learn(self, values: Values, score: float) -> None:
        """Take over what a trial of an earlier start gave."""
        self._study.add_trial(
            create_trial(params=self._encoded(values), distributions=self._axes, value=score, state=TrialState.COMPLETE)
        )

    def ask(self, number: int, *, values: Values | None = None) -> Values:
        """The values of a trial: those that it had at an earlier start, or new ones.

        New values follow from the seed, the number and, for `tpe`, what the trials before it gave.
        """
        if values is None and self._combinations is not None:
            values = self._combinations[number]
        if values is not None:
            self._study.enqueue_trial(self._encoded(values))
        self._study.sampler = _sampler(self._sweep, number=number)
        self._asked[number] = self._study.ask(dict(self._axes))
        return {key: _decoded(self._axes[key], value) for key, value in self._asked[number].params.items()}

    def tell(self, number: int, score: float | None) -> None:
        """What a trial gave; None if it failed."""
        trial = self._asked.pop(number)
        if score is None or not math.isfinite(score):
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    def importance(self) -> dict[str, float]:
        """The share of each key in the variance of the score (fANOVA, Hutter et al. 2014); empty if too few differ."""
        finished = self._study.get_trials(states=(TrialState.COMPLETE,))
        varied = [key for key in self._axes if len({trial.params[key] for trial in finished}) > 1]
        if len({trial.value for trial in finished}) < 2 or not varied:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._sweep.seed)
        found: Mapping[str, float] = get_param_importances(self._study, evaluator=evaluator, params=varied)
        return {key: float(share) for key, share in found.items()}

    def _encoded(self, values: Values) -> dict[str, JsonValue]:
        return {key: _encoded(self._axes[key], value) for key, value in values.items()}


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the points than which no other is as good in every number and better in one; lower is better."""
    return [at for at, point in enumerate(points) if not any(_beats(other, point) for other in points)]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _sampler(sweep: SweepConfig, *, number: int) -> BaseSampler:
    """A sampler for one trial: seeded by its number, a sweep that was killed goes on as if it had not been."""
    seed = sweep.seed * SEEDS_APART + number
    if sweep.search == "tpe":
        # Trials that run side by side are taken for bad ones until they are told, so that they do not all look alike.
        return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    return RandomSampler(seed=seed)


def _axis(values: Sequence[JsonValue] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution([json.dumps(value, sort_keys=True) for value in values])
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(float(values.low), float(values.high), log=values.log, step=values.step)


def _encoded(axis: BaseDistribution, value: JsonValue) -> JsonValue:
    """A choice is its JSON text, because a choice may be a block and Optuna knows only plain values."""
    return json.dumps(value, sort_keys=True) if isinstance(axis, CategoricalDistribution) else value


def _decoded(axis: BaseDistribution, value: JsonValue) -> JsonValue:
    return json.loads(str(value)) if isinstance(axis, CategoricalDistribution) else value
