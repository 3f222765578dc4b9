"""A finished run of either kind, as the audits of its kind read it."""

from __future__ import annotations

from pathlib import Path

from configs import load_experiment
from configs.places import RESOLVED, WRITTEN
from configs.task_experiment import TaskDistillConfig
from orchestration.audits.finished import FinishedRun, finished_report, open_finished
from orchestration.audits.tasks.finished import FinishedTaskRun, open_finished_task

AuditedRun = FinishedRun | FinishedTaskRun


def open_audited(directory: Path) -> AuditedRun:
    """A run whose students are all there, as they were compared.

    Raises:
        ConfigError: this is not a run, it is not finished, or what was compared is not what it was.
        DataError: the rows of a task cannot be read any more.
    """
    report = finished_report(directory)
    resolved = directory / RESOLVED
    if isinstance(load_experiment(resolved if resolved.is_file() else directory / WRITTEN), TaskDistillConfig):
        return open_finished_task(directory, report)
    return open_finished(directory)
