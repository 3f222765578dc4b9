"""The training of one student's stage, off-policy or on-policy, as a stage of the run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from configs.places import CURVES, absolute_root
from orchestration.inputs.prompts import PromptSet
from orchestration.outputs.console import StageProgress
from orchestration.outputs.curves import read_curve
from orchestration.pipeline.chain import Link, Student, selected_step
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.on_policy import rollouts_name, train_on_policy
from orchestration.pipeline.rollout_maker import RolloutMaker
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import ArtifactClaim, Line, Stage
from orchestration.pipeline.training_cost import FIELD, Stopwatch, Took
from orchestration.plan.machine import group_in_words
from orchestration.tracking.tracker import Point
from student_train.feed.plain_text import PIECES
from student_train.job import StepMetrics, TrainJob

TrainingOutcome = Mapping[str, object]
"""The fields of a `TrainResult`, and what the stage took (`training_cost.FIELD`)."""


@dataclass(slots=True)
class Training(Stage[TrainJob, TrainingOutcome, list[StepMetrics]]):
    """Trains one link of a student's chain unless its artifact exists; gives the curve of what there is then.

    `steps` are those that the stage has in the student's curve of the tracker, where stage follows stage.
    """

    student: Student
    link: Link
    steps: range
    lesson: Lesson
    prompts: PromptSet
    settings: RunSettings
    journal: Journal
    compute: Compute

    def claim(self) -> ArtifactClaim:
        """The trained student."""
        return ArtifactClaim(self.link.digest, f"the student {self.link.output_dir}")

    def prepare(self) -> TrainJob | None:
        """The job; None when the student is there."""
        link, lesson, config = self.link, self.lesson, self.settings.config
        if self.settings.artifacts.read_student(link.digest) is not None:
            return None
        return TrainJob(
            stage=link.stage,
            settings=config.runtime.training,
            model_dir=link.start_dir.resolve(),
            cache_root=absolute_root(config.runtime.cache_root),
            identity=lesson.teacher.identity,
            train_view=lesson.paths[link.stage.train_view].resolve(),
            dev_view=lesson.paths[link.stage.dev_view].resolve(),
            work_dir=link.work_dir.resolve(),
            output_dir=link.output_dir.resolve(),
            vocab=lesson.teacher.files.vocab,
            accelerator=self.settings.device,
            teacher=lesson.teacher.files.label,
            licence=config.teacher.licence,
            start=link.origin,
            plain_text=self._write_plain_text(),
        )

    def line(self) -> Line:
        """See `Stage`."""
        objective = f" {self.link.stage.objective}" if len(self.student.links) > 1 else ""
        return Line(f"train {self.student.name}{objective}", total=self._total, unit="steps", always_shown=True)

    def run(self, work: TrainJob, progress: StageProgress) -> TrainingOutcome:
        """Train in a worker group, beside engines that write for it where the stage is on-policy."""
        progress.update(0, note="starting the workers")
        watch = Stopwatch.start(lambda: self.journal.console.costs.meter.read().joules)
        group = partial(self.compute.train, work, on_step=partial(self._report, progress))
        gpus = work.settings.workers if self.settings.device == "gpu" else 1
        down = self.journal.ledger.engines_up(gpus, whose="group")
        try:
            on_policy = self.link.stage.rollout is not None
            made = self._on_policy(lambda make_due: group(meanwhile=make_due)) if on_policy else group()
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
            self.settings.artifacts.keep_student(link.digest, made)
            shutil.rmtree(link.work_dir, ignore_errors=True)
        curve = list(read_curve(link.output_dir / CURVES))
        if made is None:
            self._track(*curve)
        return curve

    def summary(self, made: TrainingOutcome | None, kept: list[StepMetrics]) -> str:
        """See `Stage`."""
        text = "reused: nothing that it depends on has changed"
        if made is not None:
            start = Took.of(made).start_seconds
            text = f"{self._total} steps" + (f", begun after {start:.1f} s" if math.isfinite(start) else "")
        dev = [metrics for metrics in kept if "dev/loss" in metrics.values]
        if not dev:
            return text
        chosen = selected_step(self.link, artifacts=self.settings.artifacts)
        end = next((metrics for metrics in dev if metrics.step == chosen), dev[-1])
        text += f", dev loss {dev[0].values['dev/loss']:.3f} -> {end.values['dev/loss']:.3f}"
        return text if end is dev[-1] else f"{text} at step {end.step}, which is kept"

    @property
    def _total(self) -> int:
        # The first of its steps is what is measured before it learns.
        return len(self.steps) - 1

    def _on_policy(self, group: Callable[[Callable[[], None]], TrainingOutcome]) -> TrainingOutcome:
        maker = RolloutMaker(
            self.link,
            config=self.settings.config,
            ledger=self.journal.ledger,
            compute=self.compute,
            lesson=self.lesson,
            prompts=self.prompts,
        )
        kept = self.settings.directory / "rollouts" / rollouts_name(self.student, self.link)
        result, shares = train_on_policy(maker, self.link, group=group, kept=kept)
        self._track(StepMetrics(self._total, dict(shares)))
        return result

    def _report(self, progress: StageProgress, metrics: StepMetrics) -> None:
        """Show and track a step as it comes."""
        losses = {name: value for name, value in metrics.values.items() if name.endswith("/loss")}
        note = ", ".join(f"{name.removesuffix('/loss')} loss {value:.3f}" for name, value in losses.items())
        progress.update(metrics.step, tokens=int(metrics.values.get("train/tokens", 0.0)), note=note)
        self._track(metrics)

    def _track(self, *curve: StepMetrics) -> None:
        points = [
            Point(name, value, self.steps.start + metrics.step)
            for metrics in curve
            for name, value in metrics.values.items()
        ]
        self.journal.tracker.log(self.student.name, points)

    def _write_plain_text(self) -> str | None:
        """Leave the plain text of a stage where its worker group looks for it; the digest of its pieces."""
        if self.link.plain is None:
            return None
        pieces = self.link.plain.pieces(self.lesson.teacher.files.tokenizer)
        pieces.save(self.link.work_dir / PIECES)
        return pieces.digest
