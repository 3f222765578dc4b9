"""The audits that a run ends with: a stage each, made from what a finished run left, and kept by what it rests on.

They come when the comparison is kept and the experiment is finished, so a start that is killed among them goes on with
those that are missing, and a finished experiment that names further ones makes these and nothing else. One that cannot
be made says why on the page and costs the run nothing (docs/decisions/0057-audits-end-a-run.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs import BudgetReached, DistillError
from configs.audit import AskedAudits
from configs.models import Device
from evaluation.results import RunResults, StageCost
from evaluation.side_effects.findings import Audit, Audited
from orchestration.audits.kinds import KINDS, AuditKind, audit_not_made, kept_audit
from orchestration.audits.opening import AuditedRun, open_audited
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.audits import read_audits, write_audit
from orchestration.comparison.numbers import audit_metrics
from orchestration.comparison.publishing import publish_pages
from orchestration.comparison.report import Report, write_report
from orchestration.outputs.console import StageProgress
from orchestration.outputs.kept import OutdatedError
from orchestration.pipeline.run import AnyRun, Journal
from orchestration.pipeline.stage import Line, Stage, run_stage
from orchestration.plan.hardware import visible_gpus

NOT_MADE = (DistillError, OSError, RuntimeError, MemoryError)
"""What an audit may fail by: what a user can act upon, files that are gone, and memory that a model does not get."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps audits of a run, each when it is made: on its page and in the tracker, and then as a file that says so."""

    results: RunResults
    directory: Path
    journal: Journal

    def keep(self, audit: Audit) -> None:
        """The file comes last: where it lies, nothing that is made from it is missing."""
        others = read_audits(self.directory)
        audited = Audited({**others.audits, audit.audit: audit}, others.unreadable)
        publish_pages(self.results, directory=self.directory, tracker=self.journal.tracker, audited=audited)
        for name, numbers in audit_metrics(audit).items():
            self.journal.tracker.log_final(name, numbers)
        write_audit(audit, self.directory)

    def not_made(self, kind: AuditKind, error: BaseException) -> Audit:
        """What stands for an audit that failed, which is said."""
        why = str(error) or type(error).__name__
        self.journal.console.warn(f"the {kind.title} could not be made: {why}")
        students = {row.name: row.method for row in self.results.models if row.role == "student"}
        return audit_not_made(kind, students, why=why)


@dataclass(slots=True)
class AuditStage(Stage[AuditedRun, Audit, Audit]):
    """Makes one audit, unless it is kept and was made from all that is there now."""

    kind: AuditKind
    finished: AuditedRun
    settings: AuditSettings
    keeper: Keeper
    kept: Audit | None = None

    def prepare(self) -> AuditedRun | None:
        """The run, unless the audit is kept."""
        try:
            self.kept = kept_audit(self.finished, self.kind, settings=self.settings)
        except OutdatedError as error:
            self.keeper.journal.console.say(f"{error}: the audit is made anew")
        except NOT_MADE:
            return self.finished  # whoever makes it says why
        return None if self.kept is not None else self.finished

    def line(self) -> Line:
        """See `Stage`."""
        return Line(self.kind.title, total=len(self.finished.students), unit="students")

    def run(self, work: AuditedRun, progress: StageProgress) -> Audit:
        """Make it, in this process; one that cannot be made stands there with its reason."""
        try:
            return self.kind.make(work, self.settings, progress)
        except BudgetReached:
            raise
        except NOT_MADE as error:
            return self.keeper.not_made(self.kind, error)

    def keep(self, made: Audit | None) -> Audit:
        """What it found, whether it was made now or before."""
        if made is not None:
            self.keeper.keep(made)
        audit = made or self.kept
        assert audit is not None
        return audit

    def summary(self, made: Audit | None, kept: Audit) -> str:
        """See `Stage`."""
        return kept.in_words


def with_audits(report: Report, *, settings: AnyRun, journal: Journal) -> Report:
    """The report of a finished run after the audits that it asks for, which its page then shows.

    Raises:
        BudgetReached: no energy is left for one of them.
    """
    kinds = _kinds(settings.config.audit)
    if not kinds:
        return report
    before = len(journal.console.costs.stages)
    keeper = Keeper(report.results, settings.directory, journal)
    try:
        finished = open_audited(settings.directory)
    except DistillError as error:
        for kind in kinds:
            keeper.keep(keeper.not_made(kind, error))
        return report
    told = AuditSettings.of(settings.config.audit, device=_device(settings))
    for kind in kinds:
        run_stage(AuditStage(kind, finished, told, keeper), settings=settings, journal=journal)
    return _with_stages(report, journal.console.costs.stages[before:], settings=settings, journal=journal)


def _kinds(asked: AskedAudits | None) -> tuple[AuditKind, ...]:
    wanted = () if asked is None else asked.wanted
    return tuple(kind for kind in KINDS if kind.name in wanted)


def _device(settings: AnyRun) -> Device:
    """Models are read in this process, which may see no GPU of the run's cluster."""
    return "gpu" if settings.device == "gpu" and visible_gpus() else "cpu"


def _with_stages(report: Report, made: Sequence[StageCost], *, settings: AnyRun, journal: Journal) -> Report:
    """The report with what audits took and when, kept and shown; as it is where all of them were kept before."""
    if not made:
        return report
    names = {stage.name for stage in made}
    others = (stage for stage in report.results.cost.stages if stage.name not in names)
    cost = replace(report.results.cost, stages=(*others, *made))
    report = replace(report, results=replace(report.results, cost=cost, timeline=journal.console.timeline.spans))
    write_report(report, settings.directory)
    publish_pages(report.results, directory=settings.directory, tracker=journal.tracker)
    return report
