"""What the stages of a run share: what its user wrote, its settings, its journal. What computes is in `compute`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from configs import DistillConfig
from configs.experiments import AnyExperiment
from configs.models import Device
from configs.task_experiment import TaskDistillConfig
from orchestration.fill.ledger import Ledger
from orchestration.inputs.imported_licences import NOTHING_IMPORTED, Imported
from orchestration.inputs.unwanted import Guard
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import require_unchanged
from orchestration.plan.colocation import GPU_SHARES, PartKind
from orchestration.plan.hardware import Hardware
from orchestration.tracking.tracker import Tracker

Config = TypeVar("Config", bound=AnyExperiment)


@dataclass(frozen=True, slots=True)
class Written(Generic[Config]):
    """The experiment as its user wrote it, and the digests of the files that it names, from before it began."""

    config: Config
    config_dir: Path
    content: Mapping[str, str]

    def require_unchanged(self) -> None:
        """Refuse to go on when a file that the experiment names is another one by now.

        Raises:
            ConfigError: it is.
        """
        require_unchanged(self.config, config_dir=self.config_dir, since=self.content)


AnyWritten = Written[DistillConfig] | Written[TaskDistillConfig]
"""Whatever the experiment distils."""


class AnyRun(Protocol):
    """What every run has, whatever its experiment distils."""

    @property
    def config(self) -> AnyExperiment:
        """The experiment; its paths are real."""
        ...

    @property
    def directory(self) -> Path:
        """The run directory."""
        ...

    @property
    def hardware(self) -> Hardware:
        """What it runs on."""
        ...

    @property
    def artifacts(self) -> Artifacts:
        """What stages leave behind."""
        ...

    @property
    def device(self) -> Device:
        """What it computes on."""
        ...

    @property
    def logs(self) -> Path:
        """Where every process of it writes its log; absolute."""
        ...


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One experiment on this hardware; the paths of `config` are real, not as they were written.

    `imported` is what students owe for rows of the teachers' caches that came with archives. `guard` judges texts, if
    the experiment has one.
    """

    config: DistillConfig
    directory: Path
    hardware: Hardware
    artifacts: Artifacts
    imported: Imported = NOTHING_IMPORTED
    guard: Guard | None = None

    @property
    def device(self) -> Device:
        """What the run computes on."""
        return self.hardware.accelerator

    @property
    def logs(self) -> Path:
        """Where every process of this run writes its log."""
        # Absolute, because workers of a cluster have working directories of their own.
        return (self.directory / "logs").absolute()

    @property
    def shares_gpus(self) -> bool:
        """Whether the worker group and the engines of an on-policy stage take turns on the same GPUs."""
        return self.config.runtime.colocate and self.device == "gpu"

    def gpu_share(self, role: PartKind) -> float:
        """The part of a GPU that a process of an on-policy stage takes in Ray's books."""
        return GPU_SHARES[role] if self.shares_gpus else 1.0


@dataclass(frozen=True, slots=True)
class Journal:
    """Where a run says and counts what it does: the terminal, the tracker, the ledger of teacher tokens."""

    console: Console
    tracker: Tracker
    ledger: Ledger

    def track(self, child: str, values: Mapping[str, float]) -> None:
        """Log the last values of a child run, and close it."""
        self.tracker.log_final(child, values)
        self.tracker.finish(child)
