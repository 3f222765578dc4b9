"""What each audit of a task rests on, told without computing anything: no network is imported here."""

from __future__ import annotations

from collections.abc import Mapping

from configs.audit import AuditName
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.groups import field_rows, said_of
from orchestration.outputs.artifacts import digest_of

MEASURES: Mapping[AuditName, int] = {"privacy": 1, "bias": 1}
"""Raised by hand when a release measures the same run differently."""


def task_privacy_rests_on(run: FinishedTaskRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of privacy is made from."""
    return {
        **run.models(),
        "task": run.results.tasks[0].digest,
        **{
            f"lessons of {student.name}": digest_of(read=[[stage.train, stage.dev] for stage in student.stages])
            for student in run.students
        },
        "settings": digest_of(pairs=settings.rows, measures=MEASURES["privacy"]),
    }


def task_bias_rests_on(run: FinishedTaskRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of bias is made from."""
    rows = field_rows(run.task.config, folder=run.config.task.parent) if settings.groups else {}
    return {
        **run.models(),
        "task": run.results.tasks[0].digest,
        "rows by group": digest_of(said={field: said_of(field, rows) for field in settings.groups}),
        "settings": digest_of(rows=settings.rows, groups=settings.groups, measures=MEASURES["bias"]),
    }


def task_refusals_rest_on(run: FinishedTaskRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit of refusals is made from."""
    return {"kind of task": digest_of(kind=run.task.config.kind)}
