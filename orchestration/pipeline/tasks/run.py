"""What the stages of a task experiment share: its settings, which never change (`orchestration.pipeline.run`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.models import Device
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from orchestration.inputs.imported_licences import NOTHING_IMPORTED, Imported
from orchestration.outputs.artifacts import Artifacts
from orchestration.plan.hardware import Hardware


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task experiment on this hardware; the paths of `config` are real, not as they were written.

    `imported` is what students owe for rows of the teachers' caches that came with archives. `asks` is the name that
    the teacher of `config` has, where that is an experiment's with several.
    """

    config: TaskDistillConfig
    directory: Path
    hardware: Hardware
    artifacts: Artifacts
    imported: Imported = NOTHING_IMPORTED
    asks: str = FIRST

    @property
    def device(self) -> Device:
        """What the run computes on."""
        return self.hardware.accelerator

    @property
    def logs(self) -> Path:
        """Where every process of this run writes its log."""
        # Absolute, because workers of a cluster have working directories of their own.
        return (self.directory / "logs").absolute()
