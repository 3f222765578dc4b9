"""The audits of an experiment that is finished already: what it names and does not have, and nothing else again."""

from __future__ import annotations

from pathlib import Path

from configs import DistillConfig, DistillError, Experiment
from configs.models import Device
from orchestration.audits.kinds import KINDS, kept_audit
from orchestration.audits.opening import open_audited
from orchestration.audits.planned import require_audits
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.report import Report
from orchestration.comparison.show import directory_of, say_audits
from orchestration.inputs.licences import with_licences
from orchestration.inputs.preflight import resolve_paths, resolve_task_paths
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.audit_stage import with_audits
from orchestration.pipeline.opening import opened_run
from orchestration.pipeline.run import AnyRun, AnyWritten, Journal, RunSettings, Written
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.plan.hardware import Hardware, visible_gpus
from orchestration.tracking.tracker import status_after


def audit_finished(config: Experiment, *, config_dir: Path, report: Report) -> Report:
    """The report of a finished experiment after those audits that it asks for and that are not kept.

    Raises:
        ConfigError: a file of pairs cannot be used, or another process is at this run.
        BudgetReached: no energy is left for an audit.
    """
    written = _written(config, config_dir=config_dir)
    real = _real(config, config_dir=config_dir)
    require_audits(real.audit)
    directory = directory_of(config, written.content)
    if not _due(real, directory):
        return report
    device: Device = "gpu" if real.runtime.accelerator != "cpu" and visible_gpus() else "cpu"
    with opened_run(real, directory, written=written) as (journal, artifacts):
        settings = _settings(real, directory, Hardware(device), artifacts)
        report = _tracked(report, settings=settings, journal=journal, digest=config.digest())
        say_audits(directory, journal.console)
    return report


def _tracked(report: Report, *, settings: AnyRun, journal: Journal, digest: str) -> Report:
    """Make the audits while the run is open in the tracker."""
    tracker, name = journal.tracker, settings.directory.name
    tracker.start(name, params={}, tags={"config_digest": digest, "run_dir": name})
    try:
        report = with_audits(report, settings=settings, journal=journal)
    except BaseException as error:
        tracker.finish_all(status=status_after(error))
        raise
    tracker.finish_all(status="FINISHED")
    return report


def _due(config: Experiment, directory: Path) -> bool:
    """Whether an audit that a finished experiment asks for is not kept."""
    wanted = () if config.audit is None else config.audit.wanted
    try:
        finished = open_audited(directory)
        settings = AuditSettings.of(config.audit, device="cpu")
        kinds = [kind for kind in KINDS if kind.name in wanted]
        return any(kept_audit(finished, kind, settings=settings) is None for kind in kinds)
    except DistillError:
        return True  # the stage says why


def _settings(config: Experiment, directory: Path, hardware: Hardware, artifacts: Artifacts) -> AnyRun:
    if isinstance(config, DistillConfig):
        return RunSettings(config, directory, hardware, artifacts)
    return TaskRun(config, directory, hardware, artifacts)


def _written(config: Experiment, *, config_dir: Path) -> AnyWritten:
    content = content_of(config, config_dir=config_dir)
    if isinstance(config, DistillConfig):
        return Written(config, config_dir, content)
    return Written(config, config_dir, content)


def _real(config: Experiment, *, config_dir: Path) -> Experiment:
    """The experiment with the paths and licences that its run had."""
    if isinstance(config, DistillConfig):
        return with_licences(resolve_paths(config, config_dir=config_dir), fetch=False)
    return with_licences(resolve_task_paths(config, config_dir=config_dir), fetch=False)
