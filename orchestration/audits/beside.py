"""Whom a student stands beside: its teacher and what it began as, as far as their weights are on this machine."""

from __future__ import annotations

from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.comparison.finished_models import FinishedModel


def models_beside(student: AuditedStudent, run: FinishedRun) -> dict[str, FinishedModel]:
    """The student first, and those who can be asked: "student", "teacher", "untouched"."""
    models = {"student": student.model}
    if run.why_no_teacher_weights is None:
        models["teacher"] = run.teacher
    if student.start is not None:
        models["untouched"] = student.start
    return models
