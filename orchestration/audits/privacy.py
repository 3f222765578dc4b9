"""`distill audit privacy`: what of its training rows can be told from a student, beside its teacher."""

from __future__ import annotations

from configs import DistillError
from configs.audit import AuditName
from evaluation.side_effects.findings import Audit, Finding
from evaluation.side_effects.paired import Instrument
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.beside import unknown_by
from orchestration.audits.canaries import CanaryAudit
from orchestration.audits.contrasts import Asked, contrasts_of
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.learned import learned_by
from orchestration.audits.membership import membership_findings
from orchestration.audits.repetition import repeated_by, repetition_findings
from orchestration.audits.rests_on import privacy_rests_on
from orchestration.audits.settings import AuditSettings
from orchestration.inputs.models import load_tokenizer
from orchestration.outputs.console import ProgressSink

PRIVACY: AuditName = "privacy"

ANY = Instrument(
    PRIVACY, "membership", "fraction", "how well training rows can be told from held-out ones: 50 % if not at all"
)
"""Stands for all instruments of a student whose rows cannot be read."""


def audit_privacy(run: FinishedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    """Ask of every student what it gives away; one that cannot be asked says why and costs the others nothing."""
    beliefs = Beliefs(settings.device)
    canaries = None if run.config.canaries is None else CanaryAudit(run, settings, beliefs)
    findings: list[Finding] = []
    notes: list[str] = []
    asked: list[Asked] = []
    for number, student in enumerate(run.students):
        progress.update(number, note=student.name)
        try:
            known = _known_of(student, run=run, canaries=canaries, notes=notes)
            more, said = _findings(known, run=run, settings=settings, beliefs=beliefs)
            findings += more
            notes += [f"{student.name}: {line}" for line in said]
            asked.append(known)
        except DistillError as error:
            findings += unknown_by([ANY], student, why=str(error))
        findings += [] if canaries is None else canaries.of(student, notes=notes)
    contrasts, said = contrasts_of(asked, run=run, beliefs=beliefs, pairs=settings.rows)
    notes += [*said, "scores are of the answers alone, not of the prompts, because only answers are learned"]
    rests_on = privacy_rests_on(run, settings)
    return Audit(PRIVACY, rests_on, tuple(findings), tuple(dict.fromkeys(notes)), tuple(contrasts))


def _known_of(student: AuditedStudent, *, run: FinishedRun, canaries: CanaryAudit | None, notes: list[str]) -> Asked:
    """What a student learned beside planted rows, and what it repeats and knows of these.

    Raises:
        DistillError: its rows cannot be read.
    """
    learned = learned_by(student, run)
    tokenizer = load_tokenizer(student.model.directory, label=student.name)
    notes += [f"{student.name}: {line}" for each in learned for line in each.notes]
    if canaries is not None:
        parted = [canaries.apart(each, tokenizer) for each in learned]
        learned = tuple(each for each, _ in parted)
        notes += [f"{student.name}: {line}" for _, lines in parted for line in lines]
    measured = repeated_by(student, learned, tokenizer=tokenizer)
    if canaries is not None:
        measured |= canaries.measured_if_asked(student.model)
    return Asked(student, learned, tokenizer, measured)


def _findings(
    known: Asked, *, run: FinishedRun, settings: AuditSettings, beliefs: Beliefs
) -> tuple[list[Finding], list[str]]:
    findings: list[Finding] = []
    notes: list[str] = []
    for each in known.learned:
        more, said = membership_findings(
            known.student, each, run=run, beliefs=beliefs, tokenizer=known.tokenizer, pairs=settings.rows
        )
        findings += more
        notes += said
    return findings + repetition_findings(known.student, known.learned, run=run, tokenizer=known.tokenizer), notes
