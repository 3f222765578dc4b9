"""A student beside its teacher and what it began as: who is asked, and what it says where one of them cannot be.

Every audit that asks models ends here. A student that cannot be asked says why, by every instrument; a teacher or a
start that cannot be leaves the student to stand without it, which is said too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from configs import DistillError
from evaluation.metric import Measured
from evaluation.side_effects.findings import Finding
from evaluation.side_effects.paired import Instrument, found_beside
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.comparison.finished_models import FinishedModel

Ask = Callable[[FinishedModel], Mapping[Instrument, Measured]]
"""Asks one model, and measures it by every instrument. Raises a `DistillError` where it cannot be asked."""


def models_beside(student: AuditedStudent, run: FinishedRun) -> dict[str, FinishedModel]:
    """The student first, and those who can be asked: "student", "teacher", "untouched"."""
    models = {"student": student.model}
    if run.why_no_teacher_weights is None:
        models["teacher"] = run.teacher
    if student.start is not None:
        models["untouched"] = student.start
    return models


def findings_beside(
    instruments: Sequence[Instrument], student: AuditedStudent, *, run: FinishedRun, ask: Ask, notes: list[str]
) -> list[Finding]:
    """What instruments find of a student, beside whoever else can be asked; `notes` gets a line for one that cannot."""
    measured: dict[str, Mapping[Instrument, Measured]] = {}
    for who, model in models_beside(student, run).items():
        try:
            measured[who] = ask(model)
        except DistillError as error:
            if who == "student":
                return unknown_by(instruments, student, why=str(error))
            notes.append(f"{student.name} stands without {model.name}, which cannot be asked: {error}")
    return [
        found_beside(
            instrument,
            {who: of[instrument] for who, of in measured.items()},
            model=student.name,
            method=student.method,
        )
        for instrument in instruments
    ]


def unknown_by(instruments: Sequence[Instrument], student: AuditedStudent, *, why: str) -> list[Finding]:
    """That of a student nothing is known by these instruments, and why."""
    return [each.unknown(student.name, method=student.method, why=why) for each in instruments]
