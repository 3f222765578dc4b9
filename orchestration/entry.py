"""The one function that other programs call. It sets the environment before it imports anything heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.environment import prepare_environment

if TYPE_CHECKING:
    from configs import Experiment
    from orchestration.comparison.report import Report
    from orchestration.pipeline.experiment import Until


def run_pipeline(config: Experiment, *, config_dir: Path, until: Until = "eval") -> Report | None:
    """Run an experiment of either kind up to and including a stage; None when it stops before the comparison.

    `config_dir` is where relative data and model paths are looked up first. What is done already is not done again;
    of a finished experiment whose data, models and results are still the same the comparison is shown at once, and
    those of its audits that are missing are made.

    Raises:
        DistillError: anything that a user can act upon, see `configs.errors`.
    """
    # Not before it is needed: statistics and metrics take a second to load, and other commands do without.
    from configs.task_experiment import TaskDistillConfig
    from orchestration.comparison.show import show_finished

    report = show_finished(config, config_dir=config_dir, stream=sys.stdout)
    audited = until == "eval" and config.audit is not None and bool(config.audit.wanted)
    if report is not None and not audited:
        return report
    prepare_environment(ray_address=config.runtime.ray_address)
    if report is not None:
        from orchestration.pipeline.audit_finished import audit_finished

        return audit_finished(config, config_dir=config_dir, report=report)
    if isinstance(config, TaskDistillConfig):
        from orchestration.pipeline.tasks.experiment import run_task_experiment

        return run_task_experiment(config, config_dir=config_dir, until=until).report
    from orchestration.pipeline.experiment import run_experiment

    return run_experiment(config, config_dir=config_dir, until=until).report
