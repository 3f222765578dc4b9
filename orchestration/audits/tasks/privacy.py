"""`distill audit privacy` of a task: whether the rows that a student learned from can be told by its labels."""

from __future__ import annotations

from configs import DistillError
from evaluation.side_effects.findings import EVERY_STUDENT, Audit, Finding
from evaluation.side_effects.paired import Instrument
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import AuditedTaskStudent, FinishedTaskRun
from orchestration.audits.tasks.learned import learned_rows
from orchestration.audits.tasks.membership import about_rows, asked_rows, membership_findings
from orchestration.audits.tasks.rests_on import task_privacy_rests_on
from orchestration.outputs.console import ProgressSink

PRIVACY = "privacy"

ANY = Instrument(
    PRIVACY, "membership", "fraction", "how well training rows can be told from held-out ones: 50 % if not at all"
)
"""Stands for all instruments of a student whose rows cannot be read."""

WORDS = Instrument(PRIVACY, "verbatim, canaries", "fraction", "what of its training text a student repeats")

NO_WORDS = "they do not apply: students of this task give labels and write nothing that they could repeat"


def audit_task_privacy(run: FinishedTaskRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Ask of every student what it gives away; one that cannot be asked says why and costs the others nothing."""
    beliefs = LabelBeliefs(run.task.config, settings.device)
    findings: list[Finding] = [WORDS.unknown(EVERY_STUDENT, method="", why=NO_WORDS)]
    notes: list[str] = []
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        try:
            more, said = _of_student(student, run=run, settings=settings, beliefs=beliefs)
        except DistillError as error:
            more, said = [ANY.unknown(student.name, method=student.method, why=str(error))], []
        findings += more
        notes += [f"{student.name}: {line}" for line in said]
    if run.config.teacher.prepare:
        notes.append(
            "the teacher was tuned on the labelled training rows itself, so its column is no control: hold a student "
            "against 50 %, and against the one that learned gold labels alone"
        )
    notes += run.about_asking()
    return Audit(PRIVACY, task_privacy_rests_on(run, settings), tuple(findings), tuple(notes))


def _of_student(
    student: AuditedTaskStudent, *, run: FinishedTaskRun, settings: AuditSettings, beliefs: LabelBeliefs
) -> tuple[list[Finding], list[str]]:
    learned = learned_rows(student, run, beliefs)
    findings: list[Finding] = []
    notes = list(learned.notes)
    for asked in asked_rows(learned, kind=run.task.config.kind, pairs=settings.rows):
        findings += membership_findings(student, asked, run=run, beliefs=beliefs)
        if asked.rows:
            notes.append(about_rows(asked))
    if not findings:
        findings.append(ANY.unknown(student.name, method=student.method, why="no training row was read"))
    return findings, notes
