"""What an experiment reads before anything is paid for: its teachers, its rows, the tasks of its comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs import DistillConfig
from orchestration.inputs.asked_prompts import read_prompts
from orchestration.inputs.data_card import FILE as DATA_CARD
from orchestration.inputs.data_card import data_card
from orchestration.inputs.licences import licences_in_words
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.planted_rows import Planted
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_files import screened_in_words
from orchestration.inputs.tasks import LoadedTask, load_tasks
from orchestration.inputs.teachers import Teacher, open_teachers
from orchestration.outputs.console import Console
from orchestration.pipeline.begun_with import require_begun_with
from orchestration.pipeline.run import Journal, RunSettings, Written


@dataclass(frozen=True, slots=True)
class FoundInData:
    """What was found in the data when they were screened, by split, and what was planted into them.

    `guard` says who judged them, where a model did.
    """

    screened: Mapping[str, Screened] = field(default_factory=dict)
    planted: Planted | None = None
    guard: str | None = None

    @property
    def said(self) -> tuple[str, ...]:
        """A line for each."""
        guarded = () if self.guard is None else (f"{self.guard}.",)
        return (*guarded, *screened_in_words(self.screened), *(() if self.planted is None else self.planted.said))


NOTHING_FOUND = FoundInData()


def read_teachers(settings: RunSettings, journal: Journal) -> dict[str, Teacher]:
    """Every teacher by its name, the first one first; see `open_teachers`, whose errors it raises.

    Raises:
        ConfigError: a run that goes on began with other ones.
    """
    with journal.console.stage("teacher", unit="MB hashed") as stage:
        teachers = open_teachers(settings.config, progress=stage.hashed)
        require_begun_with(settings.directory, teachers)
        stage.summary = "; ".join(
            f"{teacher.label}, identity {teacher.identity.digest()[:12]}" for teacher in teachers.values()
        )
    for line in licences_in_words(settings.config):
        journal.console.say(f"{line}.")
    return teachers


def read_rows(
    settings: RunSettings,
    journal: Journal,
    *,
    written: Written[DistillConfig],
    teacher: ModelFiles,
    found: FoundInData,
) -> PromptSet:
    """All that is asked about, in the teacher's tokens; the run directory gets a card of it, and what was set aside.

    Raises:
        DataError: rows cannot be read, or splits overlap.
        ConfigError: a row that was planted is not among them.
    """
    console = journal.console
    with console.stage("prompts") as stage:

        def reading(split: str, rows: int) -> None:
            stage.update(rows, note=f"{rows:,} rows of {split}")

        read = read_prompts(settings.config, teacher=teacher, progress=reading)
        prompts = read.prompts
        stage.summary = _counted(prompts)
    if found.planted is not None:
        found.planted.require_readable(prompts, reader=teacher)
    said = (*found.said, *read.said)
    for line in said:
        console.say(line)
    card = data_card(settings.config.name, prompts, data=written.config.data, said=said)
    (settings.directory / DATA_CARD).write_text(card, encoding="utf-8")
    _keep_rejected(prompts, settings.directory / "rejected.jsonl", console=console)
    return prompts


def _counted(prompts: PromptSet) -> str:
    """How many rows there are of what, in words."""
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in prompts.splits.items())
    windows = ", ".join(f"{len(rows):,} {name}" for name, rows in prompts.plain.items())
    counts += f"; windows of plain text: {windows}" if windows else ""
    return counts + (f"; {len(prompts.rejected)} rows set aside" if prompts.rejected else "")


def _keep_rejected(prompts: PromptSet, path: Path, *, console: Console) -> None:
    prompts.write_rejected(path)
    if prompts.rejected:
        first = prompts.rejected[0]
        console.warn(
            f"{len(prompts.rejected)} rows set aside in {path}; the first: {first.split} row {first.row}, "
            f"{first.reason}"
        )


def read_tasks(settings: RunSettings, journal: Journal, *, config_dir: Path) -> tuple[LoadedTask, ...]:
    """The tasks of the comparison.

    Raises:
        DataError: one cannot be read.
    """
    paths, console = settings.config.evaluation.tasks or (), journal.console
    if not paths:
        return ()
    with console.stage("tasks") as stage:
        tasks = load_tasks(paths, config_dir=config_dir)
        stage.summary = ", ".join(f"{task.facts.name} ({task.facts.test_rows} rows)" for task in tasks)
    for task in tasks:
        aside = task.facts.set_aside
        if aside:
            console.warn(f"task {task.facts.name}: {len(aside)} rows set aside; the first: {aside[0]}")
    return tasks
