"""`distill audit refusals` of students that give labels: there is nothing that these could refuse, and that is said."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.side_effects.findings import EVERY_STUDENT, Audit
from evaluation.side_effects.paired import Instrument
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.console import ProgressSink

REFUSALS = Instrument("refusals", "refusals", "fraction", "requests that are refused")

WHY = "it does not apply: students of this task give labels and write nothing that could be a refusal"


def task_refusals_rest_on(run: FinishedTaskRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit is made from."""
    return {"kind of task": digest_of(kind=run.task.config.kind)}


def audit_task_refusals(run: FinishedTaskRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Say that it does not apply."""
    return Audit(
        "refusals", task_refusals_rest_on(run, settings), (REFUSALS.unknown(EVERY_STUDENT, method="", why=WHY),), ()
    )
