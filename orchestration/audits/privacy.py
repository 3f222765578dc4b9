"""`distill audit privacy`: what of its training rows can be told from a student, beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping

from configs import DistillError
from configs.audit import AuditName
from evaluation.side_effects.findings import Audit, Finding
from evaluation.side_effects.paired import Instrument
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import unknown_by
from orchestration.audits.canaries import CanaryAudit
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import learned_by
from orchestration.audits.membership import membership_findings
from orchestration.audits.repetition import repetition_findings
from orchestration.audits.settings import AuditSettings
from orchestration.inputs.models import load_tokenizer
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.console import ProgressSink

PRIVACY: AuditName = "privacy"

MEASURES = 2
"""Raised by hand when a release measures the same run differently."""

ANY = Instrument(
    PRIVACY, "membership", "fraction", "how well training rows can be told from held-out ones: 50 % if not at all"
)
"""Stands for all instruments of a student whose rows cannot be read."""


def privacy_rests_on(run: FinishedRun, settings: AuditSettings) -> Mapping[str, str]:
    """By digest everything that the audit is made from."""
    return {
        **{f"model of {row.name}": row.digest for row in run.results.models},
        **{f"answers of {row.name}": digest_of(answers=row.answers) for row in run.results.models},
        "answers that students learn by": digest_of(answers=run.results.references),
        **{f"view {name}": digest for name, digest in run.views.items()},
        "settings": digest_of(pairs=settings.rows, measures=MEASURES),
    }


def audit_privacy(run: FinishedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Ask of every student what it gives away; one that cannot be asked says why and costs the others nothing."""
    beliefs = Beliefs(settings.device)
    canaries = None if run.config.canaries is None else CanaryAudit(run, settings, beliefs)
    findings: list[Finding] = []
    notes: list[str] = []
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        try:
            more, said = _of_student(student, run=run, settings=settings, beliefs=beliefs, canaries=canaries)
        except DistillError as error:
            more, said = unknown_by([ANY], student, why=str(error)), []
        findings += more + ([] if canaries is None else canaries.of(student, notes=notes))
        notes += [f"{student.name}: {line}" for line in said]
    notes.append("scores are of the answers alone, not of the prompts, because only answers are learned")
    return Audit(PRIVACY, privacy_rests_on(run, settings), tuple(findings), tuple(dict.fromkeys(notes)))


def _of_student(
    student: AuditedStudent,
    *,
    run: FinishedRun,
    settings: AuditSettings,
    beliefs: Beliefs,
    canaries: CanaryAudit | None,
) -> tuple[list[Finding], list[str]]:
    learned = learned_by(student, run)
    tokenizer = load_tokenizer(student.model.directory, label=student.name)
    findings: list[Finding] = []
    notes = [line for each in learned for line in each.notes]
    if canaries is not None:
        parted = [canaries.apart(each, tokenizer) for each in learned]
        learned = tuple(each for each, _ in parted)
        notes += [line for _, lines in parted for line in lines]
    for each in learned:
        more, said = membership_findings(
            student, each, run=run, beliefs=beliefs, tokenizer=tokenizer, pairs=settings.rows
        )
        findings += more
        notes += said
    return findings + repetition_findings(student, learned, run=run, tokenizer=tokenizer), notes
