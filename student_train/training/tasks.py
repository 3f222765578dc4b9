"""Learning a task: a student with a head, and examples with gold labels or what a teacher says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from cache.batches import Rows
from cache.canonical import canonical
from configs.task_stages import TaskStageConfig
from student_train.feed.examples import ExampleSet
from student_train.feed.task_steps import TaskFeed, TaskStep, measured_batches, task_batches, task_steps
from student_train.job import StepMetrics, TaskJob
from student_train.models.decoder import TORCH_DTYPES
from student_train.models.task_export import TaskCard, export_task_student
from student_train.models.task_inside import AnsweringTeacher, LiveTeacher, TaskInside
from student_train.models.task_model import load_task_student
from student_train.models.task_module import TaskModule, choose_what_learns
from student_train.models.task_student import TaskStudent
from student_train.training.learner import Learner, Step
from student_train.training.measuring import measure
from student_train.training.selection import no_better
from student_train.training.state import TrainingState
from student_train.training.task_readiness import known_gold, longest_of, require_task_ready
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup


class TaskLearner(Learner):
    """See `Learner`: steps are batches of examples, what is measured are decisions of the dev split."""

    def __init__(self, job: TaskJob, *, group: WorkerGroup) -> None:
        self._job, self._group, self._stage = job, group, job.stage
        self._train = ExampleSet.load(job.train_examples)
        self._dev = None if job.dev_examples is None else ExampleSet.load(job.dev_examples)
        require_task_ready(job, train=self._train, dev=self._dev)
        student = self._loaded(job, longest=longest_of(self._train, self._dev))
        if job.settings.gradient_checkpointing:
            student.recompute_activations()
        choose_what_learns(student, stage=job.stage)
        self.module = self._wrapped(job, student)
        self.model = self._student = student
        self.total_steps = task_steps(job.stage, examples=self._train)
        digests = (self._train.digest, None if self._dev is None else self._dev.digest)
        self.data_digest = hashlib.sha256(canonical(*digests)).hexdigest()
        self.measures = self._dev is not None
        self.from_teacher = job.stage.is_taught

    def steps(self, worker: StageWorker, *, first: int) -> Iterator[Step | None]:
        """See `Learner.steps`."""
        batches = task_batches(self._stage, examples=self._train, first=first, steps=self.total_steps)
        return self._steps(self._train, batches, first=first)

    def measure(self, worker: StageWorker) -> dict[str, float] | None:
        """See `Learner.measure`; `dev/error` is the share of decisions that are not as gold says."""
        assert self._dev is not None
        tokens = self._job.settings.micro_batch_tokens * self._group.world_size
        batches = measured_batches(self._dev, tokens=tokens, related=self._stage.related)
        values = measure(worker, self._steps(self._dev, batches, measured=True))
        if values is not None and "dev/accuracy" in values:
            values["dev/error"] = 1.0 - values["dev/accuracy"]
        return values

    def ended_early(self, measured: Sequence[StepMetrics]) -> bool:
        """See `Learner.ended_early`: when `patience` measurements in a row were no better than the best."""
        stage = self._stage
        if stage.patience is None:
            return False
        return no_better(measured, select=stage.select, keep_start=stage.keep_start) >= stage.patience

    def export(self, weights: Mapping[str, Tensor], *, state: TrainingState) -> None:
        """See `Learner.export`."""
        job = self._job
        card = TaskCard(
            teacher=job.teacher,
            licence=job.licence,
            combined=job.combined,
            start=job.start,
            stage=self._stage,
            sets=job.sets or {" and ".join(self._stage.data): len(self._train)},
            digest=self.data_digest,
            steps=state.step,
            selected_step=state.selected_step,
            measured=state.measured,
        )
        export_task_student(
            self._student, weights, start=job.model_dir, out=job.output_dir, card=card, papers=job.papers
        )

    def _loaded(self, job: TaskJob, *, longest: int) -> TaskStudent:
        """The student where it starts, which will be given rows of so many tokens at most."""
        return load_task_student(
            job.model_dir,
            kind=job.kind,
            labels=job.labels,
            dtype=TORCH_DTYPES[job.stage.dtype],
            head_seed=job.stage.seed,
            max_tokens=longest,
        )

    def _wrapped(self, job: TaskJob, student: TaskStudent) -> nn.Module:
        """Student and loss."""
        inside = _inside(job, student)
        answering = _answering(job, student, inside=inside)
        return TaskModule(student, stage=job.stage, inside=inside, answering=answering)

    def _known(self, examples: ExampleSet) -> tuple[str, ...]:
        """The metrics that mean something for every decision of these examples, terms of features aside."""
        return _known(examples, stage=self._stage)

    def _fed(self, feed: TaskFeed, batches: Iterable[Rows], *, first: int, measured: bool) -> Iterator[TaskStep]:
        """The work of each global batch, the first being number `first` of the stage."""
        return feed.steps(batches, measured=measured)

    def _steps(
        self, examples: ExampleSet, batches: Iterable[Rows], *, first: int = 0, measured: bool = False
    ) -> Iterator[Step]:
        known = (*self._known(examples), *dict.fromkeys(term.kind for term in self._stage.features))
        feed = TaskFeed(examples, self._group, self._job.settings.micro_batch_tokens, related=self._stage.related)
        for step in self._fed(feed, batches, first=first, measured=measured):
            yield Step(
                batches=step.batches,
                places=step.decisions,
                tokens=step.tokens,
                padding_share=1.0 - step.tokens / step.padded_tokens,
                known=dict.fromkeys(known, step.decisions),
                rows=[str(row) for row in step.rows],
                rows_are="examples",
            )


def _inside(job: TaskJob, student: TaskStudent) -> TaskInside | None:
    if not job.stage.features:
        return None
    assert job.taught is not None, "a stage with features has no teacher"
    return TaskInside(job.stage.features, student=student, taught=job.taught, seed=job.stage.seed)


def _answering(job: TaskJob, student: TaskStudent, *, inside: TaskInside | None) -> AnsweringTeacher | None:
    if job.stage.teacher == "cache":
        return None
    taught = job.taught
    assert taught is not None, "a stage with a live teacher has none"
    live = None if inside is None else inside.live
    if live is None:
        live = LiveTeacher.load(taught.directory, dtype=taught.dtype, student=student, notes=False)
    return AnsweringTeacher(live, taught.columns)


def _known(examples: ExampleSet, *, stage: TaskStageConfig) -> tuple[str, ...]:
    """The metrics that mean something for every decision of these examples."""
    of_gold = ("ce", "accuracy") if known_gold(examples) == len(examples.gold) else ()
    answered = examples.teacher is not None or stage.teacher == "live"
    of_teacher = ("divergence", "agreement") if answered else ()
    return ("loss", *of_gold, *of_teacher)
