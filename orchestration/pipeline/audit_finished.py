"""The audits of an experiment that is finished already: what it names and does not have, and nothing else again.

Whoever shows a finished experiment wants to see it at once, and mostly all audits are kept. So what makes them
(`late_audits`) is imported when one is made: networks, Ray and MLflow take many seconds to load.
"""

from __future__ import annotations

from pathlib import Path

from configs import DistillConfig, DistillError, Experiment
from orchestration.audits.kinds import KINDS, kept_audit
from orchestration.audits.opening import open_audited
from orchestration.audits.planned import require_audits
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.report import Report
from orchestration.comparison.show import directory_of
from orchestration.inputs.licences import with_licences
from orchestration.inputs.real_paths import resolve_paths, resolve_task_paths
from orchestration.outputs.foundations import content_of


def audit_finished(config: Experiment, *, config_dir: Path, report: Report) -> Report:
    """The report of a finished experiment after those audits that it asks for and that are not kept.

    Raises:
        ConfigError: a file of pairs cannot be used, or another process is at this run.
        BudgetReached: no energy is left for an audit.
    """
    content = content_of(config, config_dir=config_dir)
    real = _real(config, config_dir=config_dir)
    require_audits(real.audit)
    directory = directory_of(config, content)
    if not _due(real, directory):
        return report
    from orchestration.pipeline.late_audits import make_late_audits

    return make_late_audits(report, directory, config=config, real=real, config_dir=config_dir, content=content)


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


def _real(config: Experiment, *, config_dir: Path) -> Experiment:
    """The experiment with the paths and licences that its run had."""
    if isinstance(config, DistillConfig):
        return with_licences(resolve_paths(config, config_dir=config_dir), fetch=False)
    return with_licences(resolve_task_paths(config, config_dir=config_dir), fetch=False)
