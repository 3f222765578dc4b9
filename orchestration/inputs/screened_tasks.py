"""The data of an experiment that distils a task once it was screened (`orchestration.inputs.screened_files`).

The task gets a file of its own beside its screened rows, and the experiment names that: whoever reads the task, its
unlabelled texts, plain text, neighbours of a row or worked examples knows of no other. What a model writes while texts
are augmented is looked through where it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from orchestration.inputs.screen import Look, Screen, Screened, count_looks
from orchestration.inputs.screened_files import (
    Say,
    ScreenedFiles,
    ScreenedSource,
    ScreenSettings,
    file_of,
    screen_files,
)
from orchestration.inputs.screened_row import form_of_task

TASK_FILE = "task.yaml"


@dataclass(frozen=True, slots=True)
class ScreenedTask:
    """An experiment whose task has screened rows, and what was found in each source of them."""

    config: TaskDistillConfig
    splits: Mapping[str, Screened]


def screened_task(config: TaskDistillConfig, *, root: Path, say: Say, made: Path | None = None) -> ScreenedTask:
    """Screen the data of an experiment, whose paths are real, below `root`; nothing is read where nobody asks for it.

    What is there below `made` already is taken from there.

    Raises:
        ConfigError: a part is not installed, or a file is not there.
        DataError: rows cannot be read.
    """
    settings = ScreenSettings(config.privacy, config.content)
    if settings == ScreenSettings(None, None):
        return ScreenedTask(config, {})
    task = load_task_file(config.task)
    said = task.model_dump(mode="json", exclude={"data"}, exclude_none=True)
    rows = {split: {"path": file_of(split)} for split, source in task.data if source is not None}
    written = yaml.safe_dump(said | {"data": rows}, sort_keys=False)
    files = screen_files(_sources(config, task), settings, root=root, say=say, made=made, beside={TASK_FILE: written})
    if files is None:
        return ScreenedTask(config, {})
    return ScreenedTask(_reading(config, files), files.splits)


def without_unwanted(sets: TaskSets, config: TaskDistillConfig) -> tuple[TaskSets, dict[str, Screened]]:
    """The sets without texts that a model wrote and that `answers` of a block drops, and what was found in them.

    Raises:
        ConfigError: a part is not installed.
    """
    written = [name for name, made in config.data.augment.items() if isinstance(made, ByModel)]
    screen = Screen(config.privacy, config.content, answers=True)
    kept, found = dict(sets.sets), dict[str, Screened]()
    for name in written if screen.is_on else ():
        counts = Counter[str]()
        kept[name] = tuple(example for example in sets.sets[name] if _is_wanted(example, screen, counts))
        found[name] = Screened.of(counts)
    return replace(sets, sets=kept), found


def _is_wanted(example: Example, screen: Screen, counts: Counter[str]) -> bool:
    looks: list[Look] = [screen.look(example.text)]
    dropped = screen.why_dropped(looks) is not None
    count_looks(counts, looks, dropped=dropped)
    return not dropped


def _sources(config: TaskDistillConfig, task: TaskConfig) -> dict[str, ScreenedSource]:
    """The splits of the task, unlabelled texts and plain text, by their names."""
    form, folder = form_of_task(task), config.task.parent
    splits = {split: ScreenedSource(_real(source, folder), form) for split, source in task.data if source is not None}
    transfer = {f"transfer.{at}": ScreenedSource(source, form) for at, source in enumerate(config.data.transfer)}
    plain = config.data.plain
    windows = {} if plain is None else {f"plain.{split}": getattr(plain, split) for split in ("train", "dev")}
    return {**splits, **transfer, **{name: ScreenedSource(source) for name, source in windows.items()}}


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
        changed["plain"] = plain.model_copy(update={split: files.of(f"plain.{split}") for split in ("train", "dev")})
    return config.model_copy(update={"task": files.folder / TASK_FILE, "data": data.model_copy(update=changed)})
