"""The training of one stage of a task's student, or of a teacher that is prepared, as a stage of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.opening import open_view, rows_of
from configs.task import TaskKind
from orchestration.inputs.licences import papers_of
from orchestration.inputs.start_licences import licence_with_start
from orchestration.outputs.foundations import views_below
from orchestration.pipeline.run import Journal
from orchestration.pipeline.stage_training import OnStep, StageTraining, TrainingOutcome
from orchestration.pipeline.tasks.chain import TaskChain, TaskLink
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.workers import Workers
from student_train.job import GeneralJob, TaskJob, TaughtInside


@dataclass(frozen=True, slots=True)
class TaskWords:
    """What every training of an experiment is told: the decisions of its task, whose student it is, and its inside.

    `combined` says how several teachers are. Of `general` stages the decisions are which token of the vocabulary was
    hidden.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    teacher: str
    licence: str | None
    combined: str = ""
    taught: TaughtInside | None = None
    general: bool = False


@dataclass(slots=True)
class TaskTraining(StageTraining[TaskJob]):
    """Trains one link of a chain; `chain.name` is the run of the tracker that its curve belongs to."""

    chain: TaskChain
    link: TaskLink
    steps: range
    words: TaskWords
    settings: TaskRun
    journal: Journal
    workers: Workers

    @property
    def child(self) -> str:
        """See `StageTraining`."""
        return self.chain.name

    @property
    def title(self) -> str:
        """See `StageTraining`."""
        number = (
            f" {self.chain.links.index(self.link) + 1}/{len(self.chain.links)}" if len(self.chain.links) > 1 else ""
        )
        return f"train {self.chain.name}{number}"

    def learned(self) -> Mapping[Path, str]:
        """See `StageTraining`: examples, and what the cache said of them and of others as far as it was asked."""
        lesson = self.link.lesson
        examples = {lesson.train: lesson.train_digest, lesson.dev: lesson.dev_digest}
        folder = self.settings.directory / "views"
        return examples | {path: rows_of(open_view(path)).digest for path in views_below(folder)}

    def job(self) -> TaskJob:
        """See `StageTraining`."""
        link, words = self.link, self.words
        own = papers_of(self.settings.config, begins_with=self.chain.start.begins_with)
        papers = (*own, *self.settings.imported.papers)
        return (GeneralJob if words.general else TaskJob)(
            stage=link.stage,
            settings=self.settings.config.runtime.training,
            model_dir=link.start_dir.resolve(),
            work_dir=link.work_dir.resolve(),
            output_dir=link.output_dir.resolve(),
            accelerator=self.settings.device,
            teacher=words.teacher,
            licence=licence_with_start(words.licence, papers),
            papers=papers,
            combined=words.combined,
            start=link.origin,
            train_examples=link.lesson.train.resolve(),
            dev_examples=link.lesson.dev.resolve(),
            kind=words.kind,
            labels=words.labels,
            sets=dict(link.lesson.counts),
            taught=words.taught if link.stage.reads_teacher else None,
        )

    def train(self, work: TaskJob, on_step: OnStep) -> TrainingOutcome:
        """See `StageTraining`."""
        return self.workers.train(work, on_step=on_step)
