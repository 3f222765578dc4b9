"""Makes the audits that a finished experiment lacks: its run is opened once more, also in the tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from configs import DistillConfig, Experiment
from configs.models import Device
from orchestration.comparison.report import Report
from orchestration.comparison.show import say_audits
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.audit_stage import with_audits
from orchestration.pipeline.opening import opened_run
from orchestration.pipeline.run import AnyRun, AnyWritten, Journal, RunSettings, Written
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.plan.hardware import Hardware, visible_gpus
from orchestration.tracking.tracker import parent_run


def make_late_audits(
    report: Report,
    directory: Path,
    *,
    config: Experiment,
    real: Experiment,
    config_dir: Path,
    content: Mapping[str, str],
) -> Report:
    """The report of the run in a directory after the audits that it lacks.

    `config` is the experiment as it was written, `real` the same with paths and licences as its run had them.

    Raises:
        ConfigError: another process is at this run.
        BudgetReached: no energy is left for an audit.
    """
    device: Device = "gpu" if real.runtime.accelerator != "cpu" and visible_gpus() else "cpu"
    written = _written(config, config_dir=config_dir, content=content)
    with opened_run(real, directory, written=written) as (journal, artifacts):
        settings = _settings(real, directory, Hardware(device), artifacts)
        report = _tracked(report, settings=settings, journal=journal, digest=config.digest())
        say_audits(directory, journal.console)
    return report


def _tracked(report: Report, *, settings: AnyRun, journal: Journal, digest: str) -> Report:
    """Make the audits while the run is open in the tracker."""
    name = settings.directory.name
    with parent_run(journal.tracker, name, params={}, tags={"config_digest": digest, "run_dir": name}):
        return with_audits(report, settings=settings, journal=journal)


def _settings(config: Experiment, directory: Path, hardware: Hardware, artifacts: Artifacts) -> AnyRun:
    if isinstance(config, DistillConfig):
        return RunSettings(config, directory, hardware, artifacts)
    return TaskRun(config, directory, hardware, artifacts)


def _written(config: Experiment, *, config_dir: Path, content: Mapping[str, str]) -> AnyWritten:
    if isinstance(config, DistillConfig):
        return Written(config, config_dir, content)
    return Written(config, config_dir, content)
