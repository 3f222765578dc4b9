"""`distill sweep`: many students from one fill, and the best of them compared."""

from __future__ import annotations

from pathlib import Path

from configs import DistillConfig
from orchestration.cluster.nodes import cluster_hardware
from orchestration.plan.hardware import hardware_of
from orchestration.sweeps.lanes import open_lanes
from orchestration.sweeps.sweep import run_sweep


def sweep(config: DistillConfig, *, config_dir: Path) -> None:
    """Run the sweep of a configuration, or go on with it.

    Raises:
        DistillError: anything that a user can act upon.
    """
    hardware = hardware_of(config, ask_cluster=cluster_hardware)
    run_sweep(
        config,
        config_dir=config_dir,
        lanes_in=lambda directory: open_lanes(config, hardware=hardware, directory=directory),
    )
