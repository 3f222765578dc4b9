"""The training of one stage of a language model's student, off-policy or on-policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from configs.places import absolute_root
from orchestration.inputs.licences import papers_of
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.start_licences import licence_with_start, papers_of_assistants
from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.on_policy import rollouts_name, train_on_policy
from orchestration.pipeline.rollout_maker import RolloutMaker
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage_training import OnStep, StageTraining, TrainingOutcome
from student_train.feed.plain_text import PIECES
from student_train.job import StepMetrics, TrainJob


@dataclass(slots=True)
class Training(StageTraining[TrainJob]):
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

    @property
    def child(self) -> str:
        """See `StageTraining`."""
        return self.student.name

    @property
    def title(self) -> str:
        """See `StageTraining`."""
        objective = f" {self.link.stage.objective}" if len(self.student.links) > 1 else ""
        return f"train {self.student.name}{objective}"

    def learned(self) -> Mapping[Path, str]:
        """See `StageTraining`."""
        lesson, stage = self.lesson, self.link.stage
        names = dict.fromkeys((stage.train_view, stage.dev_view))
        return {lesson.paths[name]: lesson.views[name].digest for name in names}

    def job(self) -> TrainJob:
        """See `StageTraining`."""
        link, lesson, config = self.link, self.lesson, self.settings.config
        papers = (
            *papers_of(config, begins_with=config.students[self.student.name].begins_with),
            *papers_of_assistants(config, self.student.name),
            *self.settings.imported.papers,
        )
        return TrainJob(
            stage=link.stage,
            settings=config.runtime.training,
            model_dir=link.start_dir.resolve(),
            cache_root=absolute_root(config.runtime.cache_root),
            identity=lesson.teacher.identity,
            train_view=lesson.paths[link.stage.train_view].resolve(),
            dev_view=lesson.paths[link.stage.dev_view].resolve(),
            turns=None if link.stage.turns is None else lesson.paths[link.stage.turns].resolve(),
            work_dir=link.work_dir.resolve(),
            output_dir=link.output_dir.resolve(),
            vocab=self.student.start.vocab(lesson.teacher),
            retokenised=self.student.start.tokens is not None,
            accelerator=self.settings.device,
            teacher=config.label_of_teachers if config.teachers else lesson.teacher.known_as,
            licence=licence_with_start(config.licence_of_teachers, papers),
            combined=config.combined,
            papers=papers,
            start=link.origin,
            plain_text=self._write_plain_text(),
            taught=link.taught,
        )

    def train(self, work: TrainJob, on_step: OnStep) -> TrainingOutcome:
        """Train in a worker group, beside engines that write for it where the stage is on-policy."""
        group = partial(self.compute.train, work, on_step=on_step)
        if self.link.stage.rollout is None:
            return group()
        share = self.settings.gpu_share("training worker")
        return self._on_policy(lambda make_due: group(meanwhile=make_due, gpu_share=share))

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
        self.track(StepMetrics(self.total, dict(shares)))
        return result

    def _write_plain_text(self) -> str | None:
        """Leave the plain text of a stage where its worker group looks for it; the digest of its pieces."""
        if self.link.plain is None:
            return None
        pieces = self.link.plain.pieces(self.lesson.teacher.files.tokenizer)
        pieces.save(self.link.work_dir / PIECES)
        return pieces.digest
