"""What a task experiment reads before anything is paid for: the task, its sets of examples, plain texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cache.erasures import Erasures
from configs import load_task_file, resolve_data_path
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from orchestration.inputs.context_room import with_room_noted
from orchestration.inputs.data_card import FILE as DATA_CARD
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.general_texts import PlainTexts, read_general_texts
from orchestration.inputs.left_out_examples import apart_from_held_out, as_read_by, without_forgotten
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_tasks import without_unwanted
from orchestration.inputs.task_data_card import task_data_card
from orchestration.inputs.task_sets import load_learned_task, load_task_sets
from orchestration.inputs.task_teachers import locate_teacher
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.unwanted import Guard
from orchestration.pipeline.reading import FoundInData
from orchestration.pipeline.run import Journal, Written
from orchestration.pipeline.tasks.augmenting import Changer
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.teachers import Teachers
from student_train.models.task_tokenizer import load_task_tokenizer


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task, the sets that students learn from, the plain texts of general stages (None without), what was found."""

    task: LoadedTask
    sets: TaskSets
    plain: PlainTexts | None
    found: FoundInData


def read_task(run: TaskRun, journal: Journal) -> LoadedTask:
    """The task; see `load_learned_task`, whose errors it raises."""
    console = journal.console
    with console.stage("task") as stage:
        task = load_learned_task(run.config.task, run.config.teacher_context)
        facts = task.facts
        stage.summary = (
            f"{facts.name}: {facts.train_rows:,} train, {facts.dev_rows:,} dev, {facts.test_rows:,} test rows"
        )
    if facts.set_aside:
        console.warn(f"task {facts.name}: {len(facts.set_aside)} rows set aside; the first: {facts.set_aside[0]}")
    return task


def read_data(
    task: LoadedTask,
    run: TaskRun,
    journal: Journal,
    *,
    config_dir: Path,
    guard: Guard | None,
    screened: Mapping[str, Screened],
) -> TaskData:
    """Read, draw and make what students learn from, apart from what the task holds out.

    `screened` says what was found in the data themselves, and `guard` judges texts that models write.

    Raises:
        ConfigError: a file is not there, or the teacher's context cannot be used.
        DataError: one cannot be read, or a set has no example.
    """
    config, console = run.config, journal.console
    tokenizer = load_task_tokenizer(locate_teacher(config, FIRST))
    with console.stage("data") as stage:
        sets = _apart(_made_sets(task, run, tokenizer, config_dir=config_dir), task, config, tokenizer)
        sets, written = without_unwanted(sets, config, guard=guard)
        stage.summary = ", ".join(f"{len(examples):,} {name}" for name, examples in sets.sets.items())
        plain = _plain_texts(task, config, tokenizer)
        if plain is not None:
            stage.summary += f", {len(plain.train):,} plain texts"
    for note in (*sets.notes, *(() if plain is None else plain.notes)):
        console.warn(note)
    found = FoundInData({**screened, **written}, guard=None if guard is None else guard.said)
    for line in found.said:
        console.say(line)
    return TaskData(task, sets, plain, found)


def _made_sets(task: LoadedTask, run: TaskRun, tokenizer: PreTrainedTokenizerBase, *, config_dir: Path) -> TaskSets:
    config = run.config
    change = Changer(
        run.artifacts,
        tokenizer=tokenizer,
        models_root=config.runtime.models_root,
        config_dir=config_dir,
        device=run.device,
    )
    return load_task_sets(
        task,
        config.data,
        folder=config.task.parent,
        config_dir=config_dir,
        change=change,
        route=config.route,
        anew=config.drawn_anew(),
    )


def _apart(sets: TaskSets, task: LoadedTask, config: TaskDistillConfig, tokenizer: PreTrainedTokenizerBase) -> TaskSets:
    """Without what any teacher reads as an example that is held out; `tokenizer` is that of the first."""
    for name, teacher in config.every_teacher.items():
        reads = tokenizer if name == FIRST else load_task_tokenizer(locate_teacher(config, name))
        sets = apart_from_held_out(sets, task, read=as_read_by(teacher, reads, task=task.config))
        sets = with_room_noted(sets, task, teacher=teacher, tokenizer=reads, name=name)
    return sets


def _plain_texts(task: LoadedTask, config: TaskDistillConfig, tokenizer: PreTrainedTokenizerBase) -> PlainTexts | None:
    """Those of general stages, without what the task holds out."""
    plain = config.data.plain
    if plain is None:
        return None
    held_out = (example.text for example in (*task.dev, *task.test))
    return read_general_texts(plain, tokenizer=tokenizer, held_out=held_out)


def without_erased(data: TaskData, teachers: Teachers, *, run: TaskRun, journal: Journal) -> TaskData:
    """What is left of the data when rows that were forgotten go, whoever would have learned from them.

    Raises:
        CacheError: what was forgotten cannot be read.
        DataError: nothing is left of a split or of a set.
    """
    erasures = Erasures.read(run.config.runtime.cache_root)
    if not erasures.names:
        return data
    forgotten = partial(teachers.forgotten, data.task, erasures=erasures)
    task, sets = without_forgotten(data.task, data.sets, is_forgotten=forgotten)
    for note in sets.notes[len(data.sets.notes) :]:
        journal.console.warn(note)
    return replace(data, task=task, sets=sets)


def write_data_card(data: TaskData, *, written: Written[TaskDistillConfig], run: TaskRun) -> None:
    """Say in the run directory what the data are, where they come from, and what was found in them."""
    sources = load_task_file(resolve_data_path(written.config.task, config_dir=written.config_dir)).data
    card = task_data_card(written.config.name, data.task, data.sets, data=sources, said=data.found.said)
    (run.directory / DATA_CARD).write_text(card, encoding="utf-8")
