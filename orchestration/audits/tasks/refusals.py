"""`distill audit refusals` of students that give labels: there is nothing that these could refuse, and that is said."""

from __future__ import annotations

from evaluation.side_effects.findings import EVERY_STUDENT, Audit
from evaluation.side_effects.paired import Instrument
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.rests_on import task_refusals_rest_on
from orchestration.outputs.console import ProgressSink

REFUSALS = Instrument("refusals", "refusals", "fraction", "requests that are refused")

WHY = "it does not apply: students of this task give labels and write nothing that could be a refusal"


def audit_task_refusals(run: FinishedTaskRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Say that it does not apply."""
    return Audit(
        "refusals", task_refusals_rest_on(run, settings), (REFUSALS.unknown(EVERY_STUDENT, method="", why=WHY),), ()
    )
