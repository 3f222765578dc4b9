"""The audits there are, and running one: what was found before, of the same run, is not computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from configs import ConfigError
from configs.audit import EVERY, AuditName
from evaluation.side_effects.findings import Audit
from evaluation.side_effects.paired import Instrument
from orchestration.audits.opening import AuditedRun
from orchestration.audits.rests_on import bias_rests_on, privacy_rests_on, refusals_rest_on
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.rests_on import task_bias_rests_on, task_privacy_rests_on, task_refusals_rest_on
from orchestration.comparison.audits import read_audit, write_audit
from orchestration.outputs.console import Console, ProgressSink
from orchestration.outputs.kept import OutdatedError

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class AuditKind:
    """One audit: what it rests on, told without computing anything, and how it is made."""

    name: AuditName
    asks: str
    rests_on: Callable[[AuditedRun, AuditSettings], Mapping[str, str]]
    make: Callable[[AuditedRun, AuditSettings, ProgressSink], Audit]

    @property
    def title(self) -> str:
        """What it is called on its line and in the timeline."""
        return f"{self.name} audit"


def _either(of_language: Callable[..., Found], of_task: Callable[..., Found]) -> Callable[..., Found]:
    """The one of two functions that is for the kind of run that it is called with, which comes first."""

    def of_run(run: AuditedRun, *more: object) -> Found:
        return (of_task if isinstance(run, FinishedTaskRun) else of_language)(run, *more)

    return of_run


# What makes an audit is imported when one is made: networks take seconds to load, and to tell whether it is kept takes
# none of them.


def _make_privacy(run: AuditedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    from orchestration.audits.privacy import audit_privacy
    from orchestration.audits.tasks.privacy import audit_task_privacy

    return _either(audit_privacy, audit_task_privacy)(run, settings, progress)


def _make_bias(run: AuditedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    from orchestration.audits.bias import audit_bias
    from orchestration.audits.tasks.bias import audit_task_bias

    return _either(audit_bias, audit_task_bias)(run, settings, progress)


def _make_refusals(run: AuditedRun, settings: AuditSettings, progress: ProgressSink) -> Audit:
    from orchestration.audits.refusals import audit_refusals
    from orchestration.audits.tasks.refusals import audit_task_refusals

    return _either(audit_refusals, audit_task_refusals)(run, settings, progress)


KINDS = (
    AuditKind(
        "privacy",
        "what of its training rows a student gives away",
        _either(privacy_rests_on, task_privacy_rests_on),
        _make_privacy,
    ),
    AuditKind(
        "bias",
        "what a student prefers that its teacher does not",
        _either(bias_rests_on, task_bias_rests_on),
        _make_bias,
    ),
    AuditKind(
        "refusals",
        "what a student refuses",
        _either(refusals_rest_on, task_refusals_rest_on),
        _make_refusals,
    ),
)


def kinds_named(name: str) -> Sequence[AuditKind]:
    """The audit of this name, or all.

    Raises:
        ConfigError: there is none.
    """
    if name == EVERY:
        return KINDS
    found = [kind for kind in KINDS if kind.name == name]
    if not found:
        known = ", ".join(f"{kind.name} ({kind.asks})" for kind in KINDS)
        raise ConfigError(f"there is no audit {name}: choose {known}, or {EVERY}")
    return found


def kept_audit(run: AuditedRun, kind: AuditKind, *, settings: AuditSettings) -> Audit | None:
    """What an audit of a run found earlier, if it was made from all that is there now.

    Raises:
        OutdatedError: it was made from something else, or is not what was written.
    """
    return read_audit(run.directory, kind.name, rests_on=kind.rests_on(run, settings))


def audit_run(run: AuditedRun, kind: AuditKind, *, settings: AuditSettings, console: Console) -> Audit:
    """What an audit of a run finds: as it is kept, if it was made from all that is there now, or made and kept."""
    try:
        kept = kept_audit(run, kind, settings=settings)
    except OutdatedError as error:
        console.say(f"{error}: the audit is made anew")
        kept = None
    if kept is not None:
        return kept
    with console.stage(kind.title, total=len(run.students), unit="students") as stage:
        made = kind.make(run, settings, stage)
        write_audit(made, run.directory)
        stage.summary = made.in_words
    return made


def audit_not_made(kind: AuditKind, students: Mapping[str, str], *, why: str) -> Audit:
    """Stands for an audit that could not be made of students (by their names, with their methods), until it is.

    It rests on nothing that there is, so whoever audits again does not find it.
    """
    whole = Instrument(kind.name, kind.title, "fraction", kind.asks)
    findings = (whole.unknown(name, method=method, why=why) for name, method in students.items())
    return Audit(kind.name, {"not made": why}, tuple(findings), ())
