"""The experiments of a sweep: what is varied, every combination of it, and the configuration of one trial."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import product

from pydantic import JsonValue

from configs import ConfigError, DistillConfig
from configs.loading import with_values
from configs.sweep import TOP_K, Range, SweepConfig

Values = Mapping[str, JsonValue]
"""What one trial sets, by dotted key."""

MOST_COMBINATIONS = 10_000
"""A grid of more than this is a slip of the pen; it would be held in memory and run for weeks."""


def require_space(config: DistillConfig) -> SweepConfig:
    """The sweep of a configuration, after a look at the corners of its space: what cannot work dies here.

    Raises:
        ConfigError: there is none, it names a student that is not there, or a corner is not a valid experiment.
    """
    sweep = config.sweep
    if sweep is None:
        raise ConfigError("sweep is not set: say in a `sweep:` block what is varied (docs/evaluation.md)")
    varied_students(config)
    for key, values in sweep.space.items():
        corners = (values.low, values.high) if isinstance(values, Range) else values
        for value in corners:
            trial_config(config, {key: value}, name="sweep")
    return sweep


def grid(sweep: SweepConfig) -> list[dict[str, JsonValue]]:
    """Every combination, in an order that `seed` draws, so that a grid that is cut short is not one-sided.

    Raises:
        ConfigError: there are more than anybody means.
    """
    axes = {key: values.values() if isinstance(values, Range) else values for key, values in sweep.space.items()}
    count = 1
    for axis in axes.values():
        count *= len(axis)
    if count > MOST_COMBINATIONS:
        raise ConfigError(
            f"sweep.space has {count:,} combinations, more than {MOST_COMBINATIONS:,}: name fewer values, or set "
            "search: random and trials"
        )
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    random.Random(sweep.seed).shuffle(combinations)
    return combinations[: sweep.trials]


def varied_students(config: DistillConfig) -> list[str]:
    """The students that a sweep is about, in the order of the configuration: those that `space` names, else all.

    Raises:
        ConfigError: `space` names one that is not there.
    """
    assert config.sweep is not None
    named = set()
    for key in config.sweep.space:
        if key == TOP_K:
            continue
        rest = key.removeprefix("students.")
        # A student's name may hold dots.
        found = [name for name in config.students if rest.startswith(f"{name}.")]
        if not found:
            raise ConfigError(
                f"sweep.space.{key}: there is no such student; choose one of {', '.join(config.students)}"
            )
        named.add(max(found, key=len))
    return [name for name in config.students if name in named or not named]


def trial_config(config: DistillConfig, values: Values, *, name: str) -> DistillConfig:
    """The experiment of one trial: the varied students alone, with who teaches them, under these values.

    Raises:
        ConfigError: the values contradict the rest of the experiment.
    """
    wanted = set(varied_students(config))
    for student in reversed(config.students):
        above = config.students[student].teacher
        if student in wanted and above is not None:
            wanted.add(above)
    written = with_values(config, values, origin=f"sweep trial {_in_words(values)}")
    students = {name: each for name, each in written.students.items() if name in wanted}
    return written.model_copy(update={"name": name, "students": students, "sweep": None})


def fill_config(config: DistillConfig) -> DistillConfig:
    """The experiment whose fill holds everything that the trials will ask of the teacher.

    A cache with more tokens a row answers for fewer, so the largest `teacher.top_k` of the space is filled.
    """
    assert config.sweep is not None
    values = config.sweep.space.get(TOP_K)
    if values is None:
        return trial_config(config, {}, name=config.name)
    largest = values.high if isinstance(values, Range) else max(v for v in values if isinstance(v, int))
    return trial_config(config, {TOP_K: largest}, name=config.name)


def _in_words(values: Values) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "(nothing varied)"
