"""`distill evaluate --harness`: models on tasks of lm-evaluation-harness, if it is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.table import Table

from configs import ConfigError
from orchestration.commands.evaluate import place_of, subjects_of
from orchestration.comparison.harness_lines import HarnessLine
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.console import Console
from orchestration.outputs.fields import to_fields

if TYPE_CHECKING:
    from orchestration.pipeline.harness_models import HarnessFound

HARNESS_TABLE = "stillroom/harness-table/1"
"""The schema of what is written, with its version."""

COLUMNS = ("task", "version", "model", "shots", "rows", "metric", "value", "± stderr")

LONGEST = 4096
"""Tokens that engines read: benchmarks with worked examples have longer prompts than the project's own tasks."""

RELEASE = "0.4.13"


def evaluate_by_harness(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, write it; the exit code is 1 where something could not be measured.

    Raises:
        ConfigError: the harness is not installed, or options contradict each other.
    """
    names = _names(arguments)
    if find_spec("lm_eval") is None:
        raise ConfigError(
            f'--harness: lm-evaluation-harness is not installed: .venv/bin/python -m pip install "lm-eval=={RELEASE}"'
        )
    # Importing it takes ten seconds, which nobody else is to wait for.
    from orchestration.pipeline.harness_models import HarnessAsking, harness_models

    subjects, console = subjects_of(arguments), Console(sys.stdout)
    place = place_of(arguments.run, console=console)
    place = replace(place, engine=place.engine.model_copy(update={"max_model_len": LONGEST}))
    asking = HarnessAsking(names, arguments.harness_tasks, chat=arguments.harness_chat, limit=arguments.harness_limit)
    found = harness_models(subjects, asking, place=place, console=console)
    show_harness(found, limit=asking.limit, console=console)
    if arguments.out is not None:
        write_json(arguments.out, _document(found, arguments))
        console.say(f"Written to {arguments.out}")
    return 1 if found.failures else 0


def show_harness(found: HarnessFound, *, limit: int | None, console: Console) -> None:
    """Print the table, one task after the other, and what has to be known to read it."""
    first = "" if limit is None else f", first {limit} rows of each"
    table = Table(title=f"Tasks of lm-evaluation-harness {RELEASE}{first}")
    for title in COLUMNS:
        table.add_column(title, justify="right" if title in ("shots", "rows", "value", "± stderr") else "left")
    rows = [(line, model) for model, lines in found.lines.items() for line in lines]
    order = {key: place for place, key in enumerate(dict.fromkeys(_measured(line) for line, _ in rows))}
    for line, model in sorted(rows, key=lambda row: order[_measured(row[0])]):
        table.add_row(*_cells(line, model))
    if rows:
        console.say(table)
    for (model, task), count in found.shortened.items():
        console.warn(f"{model}: {task}: {count} contexts were too long and lost their beginning")
    for failure in found.failures:
        console.warn(failure)


def _measured(line: HarnessLine) -> tuple[str, str, str]:
    return line.task, line.metric, line.how


def _cells(line: HarnessLine, model: str) -> Sequence[str]:
    metric = line.metric if line.how == "none" else f"{line.metric} ({line.how})"
    shots, rows = ("" if number is None else str(number) for number in (line.shots, line.rows))
    stderr = "" if line.stderr is None else f"{line.stderr:.4f}"
    return line.task, line.version, model, shots, rows, metric, f"{line.value:.4f}", stderr


def _names(arguments: argparse.Namespace) -> tuple[str, ...]:
    for option, given in (("--task", arguments.task), ("--dev", arguments.dev)):
        if given:
            raise ConfigError(f"--harness has tasks and splits of its own: leave {option} out, or run it apart")
    names = tuple(dict.fromkeys(name.strip() for name in arguments.harness.split(",") if name.strip()))
    if not names:
        raise ConfigError("--harness names no task: give one, e.g. --harness arc_easy")
    if arguments.harness_tasks is not None and not arguments.harness_tasks.is_dir():
        raise ConfigError(f"--harness-tasks {arguments.harness_tasks}: no such directory: correct it")
    return names


def _document(found: HarnessFound, arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "schema": HARNESS_TABLE,
        "harness": RELEASE,
        "chat": arguments.harness_chat,
        "limit": arguments.harness_limit,
        "lines": [{"model": model, **to_fields(line)} for model, lines in found.lines.items() for line in lines],
        "shortened": [
            {"model": model, "task": task, "contexts": count} for (model, task), count in found.shortened.items()
        ],
        "failures": found.failures,
    }
