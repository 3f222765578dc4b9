"""Show the comparison of a finished experiment, as long as everything that it rests on still holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from configs import DistillConfig, Experiment
from configs.audit import AUDITS
from configs.places import PAGE
from configs.task_experiment import TaskDistillConfig
from evaluation.shipping import ship
from orchestration.comparison.audits import read_audits
from orchestration.comparison.report import Report, print_report, read_report
from orchestration.comparison.task_table import print_task_report
from orchestration.outputs.artifacts import MADE_ANEW, Artifacts
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import content_of, experiment_digest, what_broke
from orchestration.outputs.kept import OutdatedError

Say = Callable[[str], None]

logger = logging.getLogger(__name__)


def show_finished(config: Experiment, *, config_dir: Path, stream: TextIO) -> Report | None:
    """Print the comparison if the experiment is finished; what keeps a former one from being shown is said."""
    console = Console(stream)
    directory = run_directory(config, config_dir=config_dir, say=console.say)
    try:
        report = finished_report(config, directory=directory)
    except OutdatedError as error:
        console.warn(f"{error}: the former comparison is not shown")
        return None
    if report is not None and report.missing:
        console.warn(f"{report.missing[0]}: the former comparison is not whole, what is missing is tried again")
        return None
    if report is not None:
        console.say(f"Experiment {config.name} is finished.")
        show_report(report, config, directory=directory, console=console)
    return report


def finished_report(config: Experiment, *, directory: Path) -> Report | None:
    """The comparison in a run directory; None where there is none yet.

    Raises:
        OutdatedError: it is not what was written, or something that it was made from is not the same any more.
    """
    report = read_report(directory)
    if report is None:
        return None
    said: list[str] = []
    artifacts = Artifacts(config.runtime.run_root, say=said.append)
    reason = what_broke(report.rests_on, config=config, run_dir=directory, artifacts=artifacts)
    for digest, what in report.evidence.items():
        if reason is None and not artifacts.holds_evaluation(digest):
            reason = f"{what} is not what it was"
    if reason is not None:
        detail = f" ({said[-1].removesuffix(MADE_ANEW)})" if said else ""
        raise OutdatedError(f"{directory}: {reason}{detail}")
    return report


def show_report(report: Report, config: Experiment, *, directory: Path, console: Console) -> None:
    """Print a comparison and where everything lies."""
    if not isinstance(config, DistillConfig):
        show_task_report(report, config, directory=directory, console=console)
        return
    print_report(report, console, samples=config.evaluation.samples_shown)
    _say_where(directory, console)


def show_task_report(report: Report, config: TaskDistillConfig, *, directory: Path, console: Console) -> None:
    """Print the comparison of an experiment that distils a task; the last line says which student to ship."""
    print_task_report(report, console, samples=config.evaluation.samples_shown)
    _say_where(directory, console)
    shipped = ship(report.results)
    if shipped.student is not None:
        place = Artifacts(config.runtime.run_root).student_dir(shipped.student.digest)
        console.say(f'Ask {shipped.student.name}: .venv/bin/distill predict --model {place} --text "..."')
    console.say(shipped.sentence)


def run_directory(config: Experiment, *, config_dir: Path, say: Say = logger.info) -> Path:
    """Where an experiment keeps its report, views and logs; named by what changes its numbers.

    That is the configuration and the content of the files that it names, looked up from `config_dir` first.
    """
    return directory_of(config, content_of(config, config_dir=config_dir, say=say))


def directory_of(config: Experiment, content: Mapping[str, str]) -> Path:
    """The run directory of a configuration whose files hold this (`foundations.content_of`)."""
    return config.runtime.run_root / f"{config.name}-{experiment_digest(config, content)[:10]}"


def say_audits(directory: Path, console: Console) -> None:
    """A line for each audit of a run, which the page has in full."""
    found = read_audits(directory).audits
    for name in (each for each in AUDITS if each in found):
        console.say(f"Audit of {name}: {found[name].in_words}.")


def _say_where(directory: Path, console: Console) -> None:
    say_audits(directory, console)
    console.say(f"Everything is in {directory} (report.md, report.json, config.yaml, views, logs).")
    page = directory / PAGE
    if page.is_file():
        console.say(f"Which student to ship, as a page: {page.absolute()}")
    console.say("Compare runs in the browser: make ui")
