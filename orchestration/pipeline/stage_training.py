"""The training of one link of a student's chain, whatever it learns, as a stage of the run.

What differs by what is learned is the job, and what goes on beside the worker group.
"""

from __future__ import annotations

import math
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from configs.places import CURVES, SUMMARY
from orchestration.lineage.records import lineage_of, to_summary
from orchestration.outputs.console import StageProgress
from orchestration.outputs.curves import read_curve
from orchestration.outputs.foundations import model_digest
from orchestration.pipeline.links import TrainedLink, selected_step
from orchestration.pipeline.run import AnyRun, Journal
from orchestration.pipeline.stage import ArtifactClaim, Line, Stage
from orchestration.pipeline.training_cost import FIELD, Stopwatch, Took
from orchestration.plan.machine import group_in_words
from orchestration.tracking.tracker import Point
from student_train.job import StageJob, StepMetrics
from student_train.training.overfit import first_overfit

TrainingOutcome = Mapping[str, object]
"""The fields of a `TrainResult`, and `training_cost.FIELD`."""

OnStep = Callable[[StepMetrics], None]

Job = TypeVar("Job", bound=StageJob)


class StageTraining(Stage[Job, TrainingOutcome, list[StepMetrics]], Generic[Job]):
    """Trains one link unless its artifact exists; gives the curve of what there is then.

    `steps` are those that the stage has in the student's curve of the tracker, where stage follows stage.
    """

    link: TrainedLink
    steps: range
    settings: AnyRun
    journal: Journal

    @property
    @abstractmethod
    def child(self) -> str:
        """The run of the tracker that the curve belongs to."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the stage is called on its line."""

    @abstractmethod
    def job(self) -> Job:
        """What the worker group is given."""

    @abstractmethod
    def train(self, work: Job, on_step: OnStep) -> TrainingOutcome:
        """Train in a worker group, with whatever has to go on beside it."""

    @abstractmethod
    def learned(self) -> Mapping[Path, str]:
        """Digests of what was learned and measured on, by the files of the run directory that hold it."""

    def claim(self) -> ArtifactClaim:
        """The trained student."""
        return ArtifactClaim(self.link.digest, f"the student {self.link.output_dir}")

    def prepare(self) -> Job | None:
        """The job; None when the student is there."""
        return None if self.settings.artifacts.read_student(self.link.digest) is not None else self.job()

    def line(self) -> Line:
        """See `Stage`."""
        return Line(self.title, total=self.total, unit="steps", always_shown=True, place="workers")

    def run(self, work: Job, progress: StageProgress) -> TrainingOutcome:
        """Train, and count what it takes."""
        progress.update(0, note="starting the workers")
        watch = Stopwatch.start(lambda: self.journal.console.costs.meter.read().joules)
        gpus = work.settings.workers if self.settings.device == "gpu" else 1
        down = self.journal.ledger.engines_up(gpus, whose="group")
        try:
            made = self.train(work, partial(self._report, progress))
        finally:
            down()
        trained_on = group_in_words(work.settings, accelerator=self.settings.device, dtype=work.stage.dtype)
        return {**made, FIELD: watch.took(begun_at=made.get("begun_at"), trained_on=trained_on).kept()}

    def keep(self, made: TrainingOutcome | None) -> list[StepMetrics]:
        """Seal the student; of one that was there before, the curve is tracked in this run too."""
        link = self.link
        if made is not None:
            shutil.copy(link.work_dir / CURVES, link.output_dir / CURVES)
            # This comes last: it marks the artifact as finished.
            self.settings.artifacts.keep_student(link.digest, {**made, **self._descent()})
            shutil.rmtree(link.work_dir, ignore_errors=True)
        curve = list(read_curve(link.output_dir / CURVES))
        if made is None:
            self.track(*curve)
        elif (found := first_overfit(curve)) is not None:
            self.journal.console.warn(f"{self.title}: {found.warning(link.stage.against_overfit)}")
        return curve

    def summary(self, made: TrainingOutcome | None, kept: list[StepMetrics]) -> str:
        """See `Stage`."""
        text = "reused: nothing that it depends on has changed"
        if made is not None:
            start = Took.of(made).start_seconds
            text = f"{made.get('steps', self.total)} steps"
            text += f", begun after {start:.1f} s" if math.isfinite(start) else ""
        dev = [metrics for metrics in kept if "dev/loss" in metrics.values]
        if not dev:
            return text
        chosen = selected_step(self.link, artifacts=self.settings.artifacts)
        end = next((metrics for metrics in dev if metrics.step == chosen), dev[-1])
        for name in ("dev/loss", "dev/accuracy"):
            if name in dev[0].values and name in end.values:
                text += f", {name.replace('/', ' ')} {dev[0].values[name]:.3f} -> {end.values[name]:.3f}"
        return text if end is dev[-1] else f"{text} at step {end.step}, which is kept"

    @property
    def total(self) -> int:
        """How many steps it has."""
        # The first of its steps is what is measured before it learns.
        return len(self.steps) - 1

    def _descent(self) -> Mapping[str, object]:
        """Where the student comes from, for its summary."""
        runtime, start = self.settings.config.runtime, self.link.start_dir
        made_here = (start / SUMMARY).exists()
        lineage = lineage_of(
            run=self.settings.directory,
            run_root=runtime.run_root,
            start=start,
            start_model="" if made_here else model_digest(start, models_root=runtime.models_root),
            learned=self.learned(),
        )
        return to_summary(lineage, made_of=self.link.made_of)

    def track(self, *curve: StepMetrics) -> None:
        """Log points of the curve."""
        points = [
            Point(name, value, self.steps.start + metrics.step)
            for metrics in curve
            for name, value in metrics.values.items()
        ]
        self.journal.tracker.log(self.child, points)

    def _report(self, progress: StageProgress, metrics: StepMetrics) -> None:
        """Show and track a step as it comes."""
        losses = {name: value for name, value in metrics.values.items() if name.endswith("/loss")}
        note = ", ".join(f"{name.removesuffix('/loss')} loss {value:.3f}" for name, value in losses.items())
        progress.update(metrics.step, tokens=int(metrics.values.get("train/tokens", 0.0)), note=note)
        self.track(metrics)
