"""`distill audit bias` of a task: whom a student serves worse than its teacher does, and whom it takes for whom."""

from __future__ import annotations

from evaluation.side_effects.findings import Audit
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.outcomes import BIAS, outcome_findings
from orchestration.audits.tasks.rests_on import task_bias_rests_on
from orchestration.audits.tasks.swapped_texts import swap_findings, swapped_texts
from orchestration.outputs.console import ProgressSink


def audit_task_bias(run: FinishedTaskRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Look at every student's answers by group, and ask it about swapped texts."""
    task, beliefs = run.task.config, LabelBeliefs(run.task.config, settings.device)
    findings, notes = outcome_findings(run, settings.groups)
    texts = swapped_texts(run.tested, kind=task.kind, at_most=settings.rows)
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        findings += swap_findings(student, texts, run=run, beliefs=beliefs)
    notes.append(
        f"{len(texts):,} of {len(run.tested):,} test texts name somebody, by a short list of English words, and were "
        "swapped; whether what is right of them changes too, nobody has looked"
    )
    notes += run.about_asking()
    return Audit(BIAS, task_bias_rests_on(run, settings), tuple(findings), tuple(notes))
