"""An experiment whose data were screened (`orchestration.inputs.screened_files`): it reads screened files for its own.

What is screened, and where the files go in the configuration, is another thing for a language model (`screened_rows`)
than for a task (`screened_tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from configs.data import PlainConfig
from configs.schema import DistillConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.exchanges import exchange_of_text
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_files import (
    NOTHING_BESIDE,
    Say,
    ScreenedFiles,
    ScreenedSource,
    ScreenSettings,
    screen_files,
)
from orchestration.inputs.unwanted import Guard

Experiment = TypeVar("Experiment", DistillConfig, TaskDistillConfig)


@dataclass(frozen=True, slots=True)
class Screening:
    """How data are screened: below `root`, or taken from `made` where they are there already; by what `guard`."""

    root: Path
    say: Say
    made: Path | None = None
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class ScreenedExperiment(Generic[Experiment]):
    """An experiment that reads screened files, and what was found in each source of them."""

    config: Experiment
    splits: Mapping[str, Screened]


def screened_experiment(
    config: Experiment,
    sources: Mapping[str, ScreenedSource],
    *,
    reading: Callable[[ScreenedFiles], Experiment],
    screening: Screening,
    beside: Mapping[str, str] = NOTHING_BESIDE,
) -> ScreenedExperiment[Experiment]:
    """Screen what an experiment reads; `reading` is the experiment with the files. `beside` as of `screen_files`.

    Nothing is read where nobody asks for it.

    Raises:
        ConfigError: a part is not installed, or a blocklist cannot be read.
        DataError: rows cannot be read.
    """
    settings = ScreenSettings(config.privacy, config.content, screening.guard)
    files = screen_files(sources, settings, root=screening.root, say=screening.say, made=screening.made, beside=beside)
    return ScreenedExperiment(config, {}) if files is None else ScreenedExperiment(reading(files), files.splits)


def plain_sources(plain: PlainConfig | None) -> dict[str, ScreenedSource]:
    """Plain text as it is screened, by the names of its files."""
    if plain is None:
        return {}
    exchange = exchange_of_text(plain.field)
    return {f"plain.{split}": ScreenedSource(getattr(plain, split), exchange=exchange) for split in ("train", "dev")}


def plain_reading(plain: PlainConfig, files: ScreenedFiles) -> PlainConfig:
    """Plain text that is read from screened files."""
    return plain.model_copy(update={split: files.of(f"plain.{split}") for split in ("train", "dev")})
