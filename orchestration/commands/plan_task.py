"""`distill plan` of an experiment that distils a task: its examples, what its teacher is asked, and who is trained.

Nothing is started, downloaded or left behind. What only a run can know is said to be so: texts that a model will write,
and what the cache holds of a teacher that is still to be tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.table import Table

from configs.architecture import read_text_model
from configs.task_data import Augmentation, ByModel, RuleAugmentation
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig
from configs.task_starts import TaskStart, TransformerStart
from configs.teachers import FIRST
from orchestration.audits.planned import require_audits
from orchestration.audits.tasks.planned import planned_task_audits, require_groups
from orchestration.commands.plan import ask_cluster, borrowed_models
from orchestration.commands.plan_task_teacher import show_teacher, stage_steps
from orchestration.inputs.augment import Changed, HanoverTagger, Texts, change_by_rules
from orchestration.inputs.augment_swaps import change_by_swaps
from orchestration.inputs.context_room import with_room_noted
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.general_texts import read_general_texts
from orchestration.inputs.left_out_examples import apart_from_held_out, as_read_by
from orchestration.inputs.licences import licences_in_words, with_licences
from orchestration.inputs.model_guard import guard_in_words, planned_guard
from orchestration.inputs.models import load_tokenizer
from orchestration.inputs.real_paths import resolve_task_paths
from orchestration.inputs.rows import Row
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_files import screened_in_words, screened_root
from orchestration.inputs.screened_tasks import screened_task
from orchestration.inputs.task_mixture import require_mixable
from orchestration.inputs.task_sets import load_learned_task, load_task_sets
from orchestration.inputs.task_teachers import locate_teacher, teacher_at_hand
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.console import Console
from orchestration.outputs.scratch import scratch_directory
from orchestration.pipeline.tasks.features import require_features
from orchestration.pipeline.tasks.general_checks import require_general_models
from orchestration.pipeline.tasks.lessons import DEV
from orchestration.pipeline.tasks.starts import require_start
from orchestration.plan.hardware import Hardware, hardware_of
from orchestration.plan.host_memory import check_host
from orchestration.plan.tables import render_placement, warn_of_slow_dtype
from orchestration.plan.task_placement import own_models, plan_task_placements

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USUAL_MASK = "[MASK]"
"""Stands for the mask token of a teacher that is not at hand: what rules make depends on it by that word alone."""


def print_task_plan(config: TaskDistillConfig, *, config_dir: Path, assume_gpus: int | None, stream: TextIO) -> None:
    """Print the plan.

    Raises:
        ConfigError: it cannot work: a missing file, a task without rows to learn from, a teacher that is not installed.
        DataError: rows cannot be used, or nothing is left to learn from once held-out texts are left out.
        ModelError: the teacher has no head for the task and is not tuned, or one with other labels.
    """
    config = resolve_task_paths(config, config_dir=config_dir)
    require_audits(config.audit)
    with borrowed_models(config.runtime.models_root) as models_root, ExitStack() as opened:
        runtime = config.runtime.model_copy(update={"models_root": models_root})
        config = with_licences(config.model_copy(update={"runtime": runtime}), fetch=False)
        console = Console(stream)
        hardware = hardware_of(config, ask_cluster=ask_cluster, assume_gpus=assume_gpus)
        for line in licences_in_words(config):
            console.say(f"{line}.")
        # A plan makes nothing: what a run has not screened yet is screened for the plan alone.
        scratch = opened.enter_context(scratch_directory("screened"))
        guard = planned_guard(config)
        screening = Screening(scratch, made=screened_root(config), say=console.say, guard=guard)
        screened = screened_task(config, screening)
        config = screened.config
        guarded = guard_in_words(config, guard)
        for line in (*guarded, *screened_in_words(screened.splits)):
            console.say(line)
        require_groups(config)
        task = load_learned_task(config.task, config.teacher_context)
        sets = _load_sets(config, task, config_dir=config_dir, console=console)
        _show_sets(sets, task, console=console)
        _show_plain(config, task, console=console)
        _require_starts(config, task)
        _show_teachers(config, task, sets, hardware=hardware, console=console)
        _show_placement(config, hardware=hardware, console=console)
        _show_students(config, sets, console=console)
        for line in planned_task_audits(config):
            console.say(line)
        warn_of_slow_dtype(config, hardware=hardware, console=console)


def _load_sets(config: TaskDistillConfig, task: LoadedTask, *, config_dir: Path, console: Console) -> TaskSets:
    """The sets that are there without any model, those made by rules included."""
    data = config.data
    by_rules = {name: made for name, made in data.augment.items() if not isinstance(made, ByModel)}
    tokenizer = _tokenizer(config, FIRST)
    mask = USUAL_MASK if tokenizer is None else tokenizer.mask_token or tokenizer.unk_token

    def change(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
        if not isinstance(made, RuleAugmentation):
            return change_by_swaps(rows, texts=texts)
        parts = HanoverTagger() if made.same_part else None
        return change_by_rules(rows, texts=texts, rules=made, mask=mask, parts=parts)

    sets = load_task_sets(
        task,
        data.model_copy(update={"augment": by_rules}),
        folder=config.task.parent,
        config_dir=config_dir,
        change=change,
        route=config.route,
        anew=config.drawn_anew(),
    )
    for name, teacher in config.every_teacher.items():
        reads = _tokenizer(config, name)
        if reads is not None:
            sets = apart_from_held_out(sets, task, read=as_read_by(teacher, reads, task=task.config))
            sets = with_room_noted(sets, task, teacher=teacher, tokenizer=reads, name=name)
    for name, made in data.augment.items():
        if isinstance(made, ByModel):
            most = made.copies * sum(len(sets.sets[each]) for each in made.of)
            console.say(
                f"{name}: at most {most:,} texts, which {made.model.label} writes when the experiment runs; they are "
                "not counted here."
            )
    return sets


def _show_teachers(
    config: TaskDistillConfig, task: LoadedTask, sets: TaskSets, *, hardware: Hardware, console: Console
) -> None:
    """What each teacher is asked, and how they are combined."""
    if all(teacher_at_hand(config, name) for name in config.every_teacher):
        require_mixable(config, task)
    for said in filter(None, (config.combined, config.context_in_words)):
        console.say(f"{said}.")
    for name in config.every_teacher:
        if config.teachers:
            console.say(f"{name}:")
        show_teacher(config, task, sets, name=name, hardware=hardware, console=console)


def _tokenizer(config: TaskDistillConfig, name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a teacher; None where that is not at hand."""
    if not teacher_at_hand(config, name):
        return None
    return load_tokenizer(locate_teacher(config, name), label=config.every_teacher[name].model.label)


def _require_starts(config: TaskDistillConfig, task: LoadedTask) -> None:
    """Refuse students that cannot begin, where the teacher's sizes are known."""
    if teacher_at_hand(config):
        teacher_dir = locate_teacher(config)
        own, kind = own_models(config), task.config.kind
        for name, student in config.students.items():
            require_start(student.start, name=name, kind=kind, teacher_dir=teacher_dir, own=own.get(name))
        require_features(config, teacher_dir=teacher_dir)
        require_general_models(config, teacher_dir=teacher_dir)


def _show_sets(sets: TaskSets, task: LoadedTask, *, console: Console) -> None:
    console.say(f"Task {task.config.name}: {task.config.kind}, judged by {task.config.judged_by} on test.")
    table = Table(title="Examples")
    for title in ("set", "examples", "with gold labels"):
        table.add_column(title, justify="left" if title == "set" else "right", no_wrap=True)
    for name, examples in {**sets.sets, DEV: task.dev, "test": task.test}.items():
        table.add_row(name, f"{len(examples):,}", f"{sum(example.labelled for example in examples):,}")
    console.say(table)
    for note in sets.notes:
        console.say(f"{note}.")
    facts = task.facts
    if facts.set_aside:
        console.warn(f"{len(facts.set_aside):,} rows of the task set aside; the first: {facts.set_aside[0]}")
    if facts.exact_copies or facts.near_copies:
        console.warn(f"{facts.exact_copies:,} test rows stand in train, {facts.near_copies:,} nearly")


def _show_plain(config: TaskDistillConfig, task: LoadedTask, *, console: Console) -> None:
    """The texts of general stages, where the tokenizer that they are read with is there."""
    plain, tokenizer = config.data.plain, _tokenizer(config, FIRST)
    if plain is None or tokenizer is None:
        return
    held_out = (example.text for example in (*task.dev, *task.test))
    texts = read_general_texts(plain, tokenizer=tokenizer, held_out=held_out)
    console.say(
        f"{len(texts.train):,} plain texts to learn from and {len(texts.dev):,} to measure by, in windows of at most "
        f"{plain.max_tokens} tokens."
    )
    for note in texts.notes:
        console.say(f"{note}.")


def _show_placement(config: TaskDistillConfig, *, hardware: Hardware, console: Console) -> None:
    """What runs where and what it holds, of each teacher whose sizes are known."""
    there = [name for name in config.every_teacher if teacher_at_hand(config, name)]
    if FIRST not in there:
        return
    placements = plan_task_placements(
        config,
        teachers={name: read_text_model(locate_teacher(config, name)) for name in there},
        models=own_models(config),
        hardware=hardware,
    )
    for name, placement in placements.items():
        if name != FIRST:
            console.say(f"Before that, for {name}:")
        for line in render_placement(placement):
            console.say(line)
        for warning in check_host(placement.phases, memory=hardware.memory, asks_teacher=True):
            console.warn(warning)


def _show_students(config: TaskDistillConfig, sets: TaskSets, *, console: Console) -> None:
    table = Table(title="Who is trained")
    for title in ("student", "starts from", "stage", "objective", "learns from", "examples", "steps", "rate"):
        table.add_column(title, justify="right" if title in ("examples", "steps", "rate") else "left")
    for name, student in config.students.items():
        for number, stage in enumerate(student.general):
            steps = f"{stage.steps:,}" if stage.steps else f"{stage.epochs:g} epochs"
            table.add_row(
                name if number == 0 else "",
                _start_of(student.start) if number == 0 else "",
                f"general {number}",
                stage.objective,
                " + ".join(stage.data),
                "by windows",
                steps,
                f"{stage.learning_rate:g}",
            )
        begun = bool(student.general)
        for number, stage in enumerate(student.stages):
            known = all(each in sets.sets for each in stage.data)
            rows = sum(_read_an_epoch(each, stage, sets) for each in stage.data if each in sets.sets)
            turns = "" if stage.views is None else f", {stage.views} views"
            table.add_row(
                name if number == 0 and not begun else "",
                _start_of(student.start) if number == 0 and not begun else "",
                str(number),
                stage.objective,
                " + ".join(stage.data) + (", anew" if stage.teacher == "live" and stage.turns else turns),
                f"{rows:,}" if known else f"{rows:,} and more",
                f"{stage_steps(stage, rows=rows):,}",
                f"{stage.learning_rate:g}",
            )
    console.say(table)
    twins = [name for name, each in config.students.items() if any(stage.is_taught for stage in each.stages)]
    if config.evaluation.gold_baseline and twins:
        console.say(f"Beside them, for the comparison, the same on gold labels alone: {', '.join(twins)}.")
    augmented = [name for name in twins if config.augmented_gold(name)]
    if config.evaluation.augmented_baseline and augmented:
        console.say(f"And the same on gold labels of augmented texts alone: {', '.join(augmented)}.")
    several = {name: each.seeds for name, each in config.students.items() if each.seeds > 1}
    for name, seeds in several.items():
        console.say(f"{name} is trained {seeds} times, with other seeds.")


def _read_an_epoch(name: str, stage: TaskStageConfig, sets: TaskSets) -> int:
    """How many examples of a set an epoch of a stage reads: of copies that take turns one of each text."""
    return len(sets.copies[name]) if stage.turns and name in sets.copies else len(sets.sets[name])


def _start_of(start: TaskStart) -> str:
    if not isinstance(start, TransformerStart):
        size = "" if start.embedding_size is None else f" of {start.embedding_size}"
        return f"{start.kind}, {start.embeddings} embeddings{size}"
    if start.shape is not None:
        return f"encoder of {start.shape.layers} layers x {start.shape.hidden}"
    whole = "the teacher" if start.model is None else start.model.label
    if start.keep_layers is None:
        return "a narrower teacher" if start.model is None else whole
    kept = start.keep_layers if isinstance(start.keep_layers, int) else len(start.keep_layers)
    return f"{kept} layers of {whole}"
