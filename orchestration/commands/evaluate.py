"""`distill evaluate`: models on tasks, without an experiment around them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from configs import ConfigError
from configs.models import ModelSource
from configs.schema import EngineSettings, RuntimeConfig
from evaluation.results import DevScores, FinalScores, TaskFacts
from evaluation.statistics import Estimate, estimate, interval_in_words, number_in_words
from evaluation.tasks.measuring import (
    entities_not_in_the_row,
    measure_one,
    notes_under,
    parse_failures,
    undefined_because,
)
from orchestration.comparison.finished_models import finished_config, finished_models
from orchestration.comparison.task_examination import Scores
from orchestration.comparison.task_questions import Asking
from orchestration.inputs.tasks import LoadedTask, load_tasks
from orchestration.outputs.artifacts import Artifacts, write_json
from orchestration.outputs.console import Console
from orchestration.outputs.fields import to_fields
from orchestration.pipeline.evaluate_models import Found, Place, Subject, evaluate_models
from orchestration.plan.hardware import cpu_count, visible_gpus

COLUMNS = ("task", "model", "answers by", "metric", "value", "95 % interval", "rows", "unread")

TABLE = "stillroom/task-table/1"
"""The schema of what is written, with its version."""

KV_CACHE_GIB = 1.0
"""KV cache of an engine: a few hundred short questions at a time, for models of a size that a CPU serves."""


@dataclass(frozen=True, slots=True)
class Line:
    """A model on a task, in the metric that the task is judged by.

    `signature` says how that is computed where it varies; `entities_not_in_the_row` is 0 where no entities are asked.
    """

    task: str
    model: str
    answered_by: str
    metric: str
    unit: str
    estimate: Estimate
    parse_failures: int
    entities_not_in_the_row: int
    undefined: str | None
    signature: str


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, write it; the exit code is 1 where something could not be scored."""
    return _evaluate(arguments, DevScores) if arguments.dev else _evaluate(arguments, FinalScores)


def _evaluate(arguments: argparse.Namespace, split: type[Scores]) -> int:
    subjects = subjects_of(arguments)
    tasks = _tasks(arguments)
    console = Console(sys.stdout)
    place = place_of(arguments.run, console=console)
    name = "dev" if split is DevScores else "test"
    found = evaluate_models(subjects, tasks, split=split, place=place, console=console)
    facts = [task.facts for task in tasks]
    lines = lines_of(found, facts)
    show_lines(lines, facts, split=name, console=console)
    for failure in found.failures:
        console.warn(failure)
    if arguments.out is not None:
        write_json(arguments.out, _document(found, lines, tasks, split=name))
        console.say(f"Written to {arguments.out}")
    return 1 if found.failures else 0


def subjects_of(arguments: argparse.Namespace) -> list[Subject]:
    """The models of the runs and those that are named.

    Raises:
        ConfigError: there is none, or one is named twice.
    """
    subjects = [*_of_runs(arguments.run), *_of_models(arguments.model, dtype=arguments.dtype)]
    if not subjects:
        raise ConfigError("nothing to evaluate: name run directories, or models with --model")
    return subjects


def lines_of(found: Found[Scores], tasks: Sequence[TaskFacts]) -> tuple[Line, ...]:
    """Every score, in the order of the tasks and then of the models."""
    lines = []
    for facts in tasks:
        for (model, name), scores in found.scores.items():
            if name != facts.name:
                continue
            measured = measure_one(facts, scores.examples)
            lines.append(
                Line(
                    task=name,
                    model=model,
                    answered_by=scores.answered_by,
                    metric=facts.metric,
                    unit=measured.metric.unit,
                    estimate=estimate(measured),
                    parse_failures=parse_failures(scores.examples),
                    entities_not_in_the_row=(
                        entities_not_in_the_row(scores.examples) if facts.kind == "tagging" else 0
                    ),
                    undefined=undefined_because(measured),
                    signature=measured.metric.signature,
                )
            )
    return tuple(lines)


def show_lines(lines: Sequence[Line], facts: Sequence[TaskFacts], *, split: str, console: Console) -> None:
    """Print the table, and what has to be known of each task to read it."""
    table = Table(title=f"Tasks on their {split} splits")
    for title in COLUMNS:
        table.add_column(title, justify="left" if title in COLUMNS[:4] else "right")
    for line in lines:
        table.add_row(
            line.task,
            line.model,
            line.answered_by,
            line.metric,
            number_in_words(line.estimate.value, line.unit),
            line.undefined or interval_in_words(line.estimate.interval, line.unit),
            str(line.estimate.n),
            str(line.parse_failures),
        )
    console.say(table)
    for each in facts:
        console.say(_in_words(each))
        of_task = [line for line in lines if line.task == each.name]
        for note in notes_under(
            nowhere={line.model: line.entities_not_in_the_row for line in of_task},
            signatures={line.metric: line.signature for line in of_task},
        ):
            console.say(f"{each.name}: {note}")
        for reason in each.set_aside[:3]:
            console.warn(f"{each.name}: set aside: {reason}")


def _in_words(facts: TaskFacts) -> str:
    copies = (
        f"{facts.exact_copies} test rows stand in train, {facts.near_copies} nearly"
        if facts.train_rows
        else "there is no train split to search for copies"
    )
    aside = f"; {len(facts.set_aside)} rows set aside" if facts.set_aside else ""
    constant = number_in_words(facts.baseline, facts.unit)
    return f"{facts.name}: the best constant answer scores {constant} on test; {copies}{aside}"


def _document(
    found: Found[Scores], lines: Sequence[Line], tasks: Sequence[LoadedTask], *, split: str
) -> dict[str, object]:
    return {
        "schema": TABLE,
        "split": split,
        "tasks": [to_fields(task.facts) for task in tasks],
        "lines": [to_fields(line) for line in lines],
        "answers": [{"model": model, **to_fields(scores)} for (model, _), scores in found.scores.items()],
        "failures": found.failures,
    }


def _tasks(arguments: argparse.Namespace) -> tuple[LoadedTask, ...]:
    """The tasks that are named, or else those of the runs, each once."""
    if arguments.task:
        return load_tasks(arguments.task, config_dir=Path())
    named: dict[str, LoadedTask] = {}
    for run in arguments.run:
        for task in load_tasks(finished_config(run).evaluation.tasks or (), config_dir=run):
            named.setdefault(task.facts.digest, task)
    if not named:
        raise ConfigError("no task to evaluate on: name one with --task, e.g. configs/tasks/reviews.yaml")
    return tuple(named.values())


def place_of(runs: Sequence[Path], *, console: Console) -> Place:
    """This machine; what is kept lies beside the runs."""
    gpus, runtime = visible_gpus(), RuntimeConfig()
    # What a run kept is found again beside it.
    root = runs[0].parent if runs else runtime.run_root
    log_dir = (root / "evaluate" / "logs").absolute()
    log_dir.mkdir(parents=True, exist_ok=True)
    return Place(
        accelerator="gpu" if gpus else "cpu",
        gpus=gpus,
        engine=EngineSettings(cpus=cpu_count(), kv_cache_gib=KV_CACHE_GIB),
        models_root=runtime.models_root,
        artifacts=Artifacts(root, say=console.warn),
        log_dir=log_dir,
    )


def _of_runs(runs: Sequence[Path]) -> list[Subject]:
    """Teacher, untouched and students of finished runs; their names begin with the run's where there are several."""
    subjects = []
    for run in runs:
        asking = Asking.of(finished_config(run))
        prefix = f"{run.name}/" if len(runs) > 1 else ""
        subjects += [
            Subject(prefix + each.name, each.role, ModelSource(path=each.directory), each.dtype, each.digest, asking)
            for each in finished_models(run)
        ]
    return subjects


def _of_models(models: Sequence[str], *, dtype: str) -> list[Subject]:
    subjects: dict[str, Subject] = {}
    for model in models:
        source = ModelSource(path=Path(model)) if Path(model).is_dir() else ModelSource(hub=model)
        name = Path(model).name or model
        if name in subjects:
            name = model
        if name in subjects:
            raise ConfigError(f"--model {model} is named twice: name it once")
        subjects[name] = Subject(name, "student", source, dtype)
    return list(subjects.values())
