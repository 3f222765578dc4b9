"""A stage of a run, in three words, and the one way in which stages are run.

prepare   what is left to do: requests, a job, models. None where all that the stage makes is there already, from an
          earlier start or another experiment. An artifact of the run root is claimed before that is asked, so two
          pipelines never make it side by side: the second waits, and then finds it done.
run       do it: in engines, in a worker group, in a process of its own. This alone costs something. Killed at any
          moment, it leaves what the next start goes on from.
keep      seal and track what there is now, whether it was made now or before, and give what the next stage takes.

A stage has one line in the terminal and one row in the report's table of times. One that only reports progress has a
line even when nothing is left to do (`always_shown`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs import ConfigError
from evaluation.results import Place
from orchestration.fill.budgets import require_energy
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.run import AnyRun, Journal

Work = TypeVar("Work")
Made = TypeVar("Made")
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Line:
    """How a stage is shown: its title, how much there is to do (in `unit`), whether without work too; where it runs."""

    title: str
    total: float | None = None
    unit: str = ""
    always_shown: bool = False
    place: Place = "driver"


@dataclass(frozen=True, slots=True)
class ArtifactClaim:
    """The artifact that a stage makes, by digest and in words."""

    digest: str
    what: str


class Stage(ABC, Generic[Work, Made, Kept]):
    """One stage; see the three words above."""

    def claim(self) -> ArtifactClaim | None:
        """What is held while the stage is prepared, run and kept; None when no other pipeline makes the same."""
        return None

    @abstractmethod
    def prepare(self) -> Work | None:
        """What is left to do; None when nothing is."""

    @abstractmethod
    def line(self) -> Line:
        """How the stage is shown; asked after `prepare`."""

    @abstractmethod
    def run(self, work: Work, progress: StageProgress) -> Made:
        """Do what is left."""

    @abstractmethod
    def keep(self, made: Made | None) -> Kept:
        """Keep what was made; None when nothing was left to do."""

    @abstractmethod
    def summary(self, made: Made | None, kept: Kept) -> str:
        """What the line of the stage ends with."""


def run_stage(stage: Stage[Work, Made, Kept], *, settings: AnyRun, journal: Journal) -> Kept:
    """Prepare a stage, run it if something is left to do, and keep what there is then."""
    claim = stage.claim()
    with nullcontext() if claim is None else settings.artifacts.claim(claim.digest, what=claim.what):
        work = stage.prepare()
        line = stage.line()
        if work is None and not line.always_shown:
            return stage.keep(None)
        with journal.console.stage(line.title, total=line.total, unit=line.unit, place=line.place) as progress:
            if work is not None:
                _limit_energy(progress, title=line.title, settings=settings, journal=journal)
            made = None if work is None else stage.run(work, progress)
            kept = stage.keep(made)
            progress.summary = stage.summary(made, kept)
    journal.tracker.flush()
    return kept


def _limit_energy(progress: StageProgress, *, title: str, settings: AnyRun, journal: Journal) -> None:
    """Have a stage end when no energy is left for it, which is looked at now and while it shows progress.

    Raises:
        BudgetReached: none is left.
        ConfigError: it is limited, and nothing here measures it.
    """
    limits = settings.config.budgets

    def look() -> None:
        now = journal.console.costs.meter.read().joules
        journal.ledger.took(now)
        if limits.max_kwh is not None:
            if math.isnan(now):
                raise ConfigError(f"budgets.max_kwh={limits.max_kwh:g}: nothing here measures energy: remove it")
            require_energy(limits, spent=journal.ledger.counts(), purpose=title)

    look()
    progress.watch = look
