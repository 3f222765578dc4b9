"""What `distill plan` says of the teacher of a task: what it is asked, and what the cache holds of that.

Nothing is tuned for it: whether a run has tuned the teacher already is known by what that is addressed by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cache import TeacherCache, TeacherIdentity
from configs import ConfigError, DoorError
from configs.models import Device
from configs.places import is_url
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import GOLD, TaskStageConfig
from configs.task_starts import TransformerStart
from configs.teachers import FIRST, key_of_teacher
from evaluation.tasks.examples import Example
from orchestration.commands.plan import PATIENCE_S
from orchestration.fill.refusals import open_refusals, open_signal_refusals
from orchestration.inputs.doors import TeacherDoor
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.generative_teachers import door_of_writer, open_generative_teacher, require_askable
from orchestration.inputs.signal_doors import SignalDoor
from orchestration.inputs.task_teachers import TaskTeacher, locate_teacher, open_task_teacher, teacher_at_hand
from orchestration.inputs.task_texts import decision_labels
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.wide_texts import read_wide
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.outputs.scratch import scratch_directory
from orchestration.pipeline.tasks.chain import TaskChain, task_chain
from orchestration.pipeline.tasks.generative_plan import (
    asked_examples,
    plan_questions,
    require_fitting_context,
    show_questions,
    task_questions,
)
from orchestration.pipeline.tasks.lessons import DEV, TEST, Lessons
from orchestration.pipeline.tasks.starts import StartsOf, made_start, reader_of
from orchestration.plan.hardware import Hardware
from orchestration.plan.requests import NothingHeld
from orchestration.plan.signal_requests import (
    NoSignals,
    SignalHoldings,
    SignalPlan,
    SignalWidths,
    asked_sets,
    plan_signals,
    signal_sets,
    wanted_signals,
)
from orchestration.plan.signal_tables import show_signal_plan, signal_fill_time
from orchestration.plan.task_features import wanted_states
from orchestration.plan.task_placement import own_models


def show_teacher(
    config: TaskDistillConfig,
    task: LoadedTask,
    sets: TaskSets,
    *,
    name: str = FIRST,
    hardware: Hardware,
    console: Console,
) -> None:
    """What a teacher is asked about these sets, and what that costs as far as it is known.

    Raises:
        ConfigError: it cannot be asked about this task.
        ModelError: it has no head for the task and is not tuned, or one with other labels.
    """
    several, config, key = bool(config.teachers), config.of_teacher(name), key_of_teacher(name)
    teacher, gold = config.teacher, len(sets.sets[GOLD])
    heads = teacher.answers == "head"
    if heads:
        examined = several or config.teacher_context is not None
        own, tests = sets.of_teacher(name), {TEST: sets.part_of(name, task.test)} if examined else {}
        asked_of = {**own.only(asked_sets(config)), DEV: sets.part_of(name, task.dev), **tests}
    else:
        asked_of = asked_examples(config, task, sets)
    count = sum(map(len, asked_of.values()))
    if teacher.general:
        console.say(f"{teacher.model.label} learns hidden tokens of plain text first.")
    for stage in teacher.prepare:
        steps = stage_steps(stage, rows=gold)
        console.say(f"{teacher.model.label} is tuned on {gold:,} gold examples first, {steps:,} steps.")
    if not heads:
        require_askable(config, task.config)
    if not teacher_at_hand(config):
        console.warn(
            f"{teacher.model.label} is not on this machine: it is asked about {count:,} texts, all misses, and what it "
            "and the students take of memory is not known"
        )
        return
    if not heads:
        _show_questions(config, task, asked_of, key=key, device=hardware.accelerator, console=console)
        return
    # What general stages make of it first is addressed by texts that are not read here.
    tuned = _tuned(config, task, sets) if teacher.prepare and not teacher.general else None
    if tuned is not None:
        console.say("That is done already: it is asked as it was tuned.")
    opened = open_task_teacher(config, task.config, prepared=tuned, key=key)
    unknown = bool(teacher.prepare) and tuned is None
    if unknown:
        console.say("Until it is tuned nobody knows what the cache holds of it: everything counts as a miss.")
    plan = _signal_plan(config, task, opened, asked_of, held=NoSignals() if unknown else _held(config, opened))
    if teacher.serve is not None:
        _show_door(SignalDoor(teacher.serve, opened, teacher, key), console=console)
    time = signal_fill_time(plan, config=config, teacher=opened.model, accelerator=hardware.accelerator)
    show_signal_plan(plan, time=time, max_tokens=teacher.max_tokens, console=console)


def _show_door(door: SignalDoor, *, console: Console) -> None:
    """Say who answers behind a door. One that does not may do so by the time of a run."""
    try:
        console.say(f"{door.said(patience_s=PATIENCE_S)}.")
    except (ConfigError, DoorError) as error:
        console.warn(f"{error}; planned with what is known here")


def _asked_door(config: TaskDistillConfig, *, key: str, console: Console) -> TeacherDoor | None:
    """The door that a language model answers behind, having said so; as `_show_door` of one that does not."""
    try:
        door = door_of_writer(config, key=key, patience_s=PATIENCE_S)
    except (ConfigError, DoorError) as error:
        console.warn(f"{error}; planned with what is known here")
        return None
    if door is not None:
        console.say(f"{door.said}.")
    return door


def stage_steps(stage: TaskStageConfig, *, rows: int) -> int:
    """Optimiser steps of a stage that learns from so many examples, as far as none of them is left out."""
    return stage.steps or math.ceil((stage.epochs or 0.0) * math.ceil(rows / stage.batch_size))


def _show_questions(
    config: TaskDistillConfig,
    task: LoadedTask,
    examples: Mapping[str, Sequence[Example]],
    *,
    key: str,
    device: Device,
    console: Console,
) -> None:
    door = _asked_door(config, key=key, console=console)
    teacher = open_generative_teacher(config, task.config, door=door, key=key)
    questions = task_questions(config, task, teacher.files)
    questions.require_taken(task.train[0])
    questions.require_distinct_labels(task.train[0])
    lost = require_fitting_context(questions, examples)
    if lost:
        console.warn(lost)
    refused = open_refusals(config.runtime, teacher.identity, k=questions.k, door=teacher.door)
    cache = _cache_of(config, teacher.by_weights) or NothingHeld()
    plan = plan_questions(questions, examples, cache=cache, refused=refused)
    show_questions(plan, config=config, files=teacher.files, device=device, console=console)


def _tuned(config: TaskDistillConfig, task: LoadedTask, sets: TaskSets) -> Path | None:
    """The directory of the tuned teacher, where a run has made it already."""
    artifacts = Artifacts(config.runtime.run_root)
    if not config.runtime.run_root.is_dir():
        return None
    with scratch_directory("plan") as place:
        chain = tuned_chain(config, task, sets, place=place)
    return chain.directory if artifacts.read_student(chain.digest) is not None else None


def tuned_chain(config: TaskDistillConfig, task: LoadedTask, sets: TaskSets, *, place: Path) -> TaskChain:
    """What the tuning of the teacher is addressed by; its start and its lessons are made in `place`, and not used."""
    kind, labels = task.config.kind, decision_labels(task.config)
    models_root, teacher = config.runtime.models_root, config.teacher
    starts = StartsOf(
        teacher_dir=locate_teacher(config),
        kind=kind,
        labels=labels,
        models_root=models_root,
        artifacts=Artifacts(place),
    )
    untouched = TransformerStart(kind="transformer", model=teacher.model)
    start = made_start(untouched, seed=teacher.prepare[0].seed, of=starts)
    reader = replace(reader_of(start, max_tokens=teacher.max_tokens), wide=True)
    lessons = Lessons(
        sets, task.dev, task=task.config, beliefs=None, agreement=config.data.agreement, folder=place / "lessons"
    )
    return task_chain(
        "teacher",
        stages=teacher.prepare,
        start=start,
        lesson=lambda stage: lessons.of(stage, reader),
        kind=kind,
        labels=labels,
        artifacts=Artifacts(config.runtime.run_root),
    )


def _signal_plan(
    config: TaskDistillConfig,
    task: LoadedTask,
    teacher: TaskTeacher,
    sets: Mapping[str, Sequence[Example]],
    *,
    held: SignalHoldings,
) -> SignalPlan:
    longest = config.teacher.max_tokens
    states = wanted_states(config, teacher=teacher.model, models=own_models(config))
    read = {
        name: read_wide(teacher.tokenizer, examples, task=task.config, max_tokens=longest)
        for name, examples in sets.items()
    }
    return plan_signals(
        signal_sets(read, wanted_signals(config, kind=task.config.kind, states=states)),
        cache=held,
        widths=SignalWidths(len(teacher.columns), teacher.model.hidden),
        encoding=config.teacher.encoding,
        refused=open_signal_refusals(config, teacher.identity),
    )


def _held(config: TaskDistillConfig, teacher: TaskTeacher) -> SignalHoldings:
    """The teacher's signals as far as there are any."""
    cache = _cache_of(config, teacher.identity)
    return NoSignals() if cache is None else cache.signals


def _cache_of(config: TaskDistillConfig, identity: TeacherIdentity) -> TeacherCache | None:
    """The cache of a teacher if there is one; none is made."""
    root = config.runtime.cache_root
    if not is_url(root) and not (Path(root) / identity.digest()).exists():
        return None
    return TeacherCache.open(root, identity, create=False)
