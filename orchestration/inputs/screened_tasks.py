"""The data of an experiment that distils a task once it was screened (`orchestration.inputs.screened_experiment`).

The task gets a file of its own beside its screened rows, and the experiment names that: whoever reads the task, its
unlabelled texts, plain text, neighbours of a row or worked examples knows of no other. What a model writes while texts
are augmented is looked through where it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from configs import load_task_file, resolve_data_path
from configs.data import SplitConfig
from configs.task import TaskConfig
from configs.task_data import ByModel
from configs.task_experiment import TaskDistillConfig
from evaluation.tasks.examples import Example
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.exchanges import Exchange, exchange_of_task
from orchestration.inputs.screen import Screen, Screened, count_looks
from orchestration.inputs.screened_experiment import (
    ScreenedExperiment,
    Screening,
    plain_reading,
    plain_sources,
    screened_experiment,
)
from orchestration.inputs.screened_files import ScreenedFiles, ScreenedSource, file_of
from orchestration.inputs.screened_row import form_of_task
from orchestration.inputs.unwanted import Guard

TASK_FILE = "task.yaml"


def screened_task(config: TaskDistillConfig, screening: Screening) -> ScreenedExperiment[TaskDistillConfig]:
    """Screen the task of an experiment whose paths are real, its unlabelled texts and its plain text.

    Raises:
        ConfigError: a part is not installed, or a file is not there.
        DataError: rows cannot be read.
    """
    if config.privacy is None and config.content is None:
        return ScreenedExperiment(config, {})
    task = load_task_file(config.task)
    said = task.model_dump(mode="json", exclude={"data"}, exclude_none=True)
    rows = {split: {"path": file_of(split)} for split, source in task.data if source is not None}
    written = yaml.safe_dump(said | {"data": rows}, sort_keys=False)
    return screened_experiment(
        config,
        _sources(config, task),
        reading=lambda files: _reading(config, files),
        screening=screening,
        beside={TASK_FILE: written},
    )


def without_unwanted(
    sets: TaskSets, config: TaskDistillConfig, *, guard: Guard | None = None
) -> tuple[TaskSets, dict[str, Screened]]:
    """The sets without texts that a model wrote and that `answers` of a block drops, and what was found in them.

    Raises:
        ConfigError: a part is not installed.
    """
    written = [name for name, made in config.data.augment.items() if isinstance(made, ByModel)]
    screen = Screen(config.privacy, config.content, answers=True, guard=guard)
    kept, found = dict(sets.sets), dict[str, Screened]()
    try:
        for name in written if screen.is_on else ():
            counts = Counter[str]()
            kept[name] = tuple(_wanted(sets.sets[name], screen, counts))
            found[name] = Screened.of(counts)
    finally:
        screen.rest()
    return replace(sets, sets=kept), found


def _wanted(examples: Sequence[Example], screen: Screen, counts: Counter[str]) -> Iterator[Example]:
    said = [([screen.look(example.text)], Exchange.of(example.text)) for example in examples]
    for example, looks in zip(examples, screen.judged(said), strict=True):
        dropped = screen.why_dropped(looks) is not None
        count_looks(counts, looks, dropped=dropped)
        if not dropped:
            yield example


def _sources(config: TaskDistillConfig, task: TaskConfig) -> dict[str, ScreenedSource]:
    """The splits of the task, unlabelled texts and plain text, by their names."""
    form, exchange, folder = form_of_task(task), exchange_of_task(task), config.task.parent
    named = {split: _real(source, folder) for split, source in task.data if source is not None}
    named |= {f"transfer.{at}": source for at, source in enumerate(config.data.transfer)}
    rows = {name: ScreenedSource(source, form, exchange) for name, source in named.items()}
    return rows | plain_sources(config.data.plain)


def _real(source: SplitConfig, folder: Path) -> SplitConfig:
    """A source of a task whose file lies in `folder`, with a real path."""
    if source.path is None:
        return source
    return source.model_copy(update={"path": resolve_data_path(source.path, config_dir=folder)})


def _reading(config: TaskDistillConfig, files: ScreenedFiles) -> TaskDistillConfig:
    """The experiment with screened files in place of its own."""
    data, plain = config.data, config.data.plain
    changed: dict[str, Any] = {"transfer": tuple(files.of(f"transfer.{at}") for at in range(len(data.transfer)))}
    if plain is not None:
        changed["plain"] = plain_reading(plain, files)
    return config.model_copy(update={"task": files.folder / TASK_FILE, "data": data.model_copy(update=changed)})
