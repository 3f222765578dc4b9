"""A finished run that distils a task as an audit reads it: students, what they learned from, their teacher, the rows.

Nothing is believed because it lies there: a student has to be the one that was compared, and the rows of the task those
that everybody answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs import ConfigError, DistillError, load_experiment
from configs.places import RESOLVED, WRITTEN
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig, TaskStudentConfig
from configs.teachers import FIRST
from configs.visible_text import first_line
from evaluation.results import ModelResults, RunResults
from evaluation.tasks.examples import Example
from evaluation.verdict import WITHOUT_TEACHER
from orchestration.audits.finished import Audited
from orchestration.comparison.report import Report
from orchestration.inputs.model_guard import planned_guard
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_files import screened_root
from orchestration.inputs.screened_tasks import screened_task
from orchestration.inputs.task_sets import load_learned_task
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.tasks import LoadedTask
from orchestration.lineage.records import MADE_OF
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.prepared import noted_prepared


@dataclass(frozen=True, slots=True)
class HeadModel:
    """A model with a task head on disk: its directory, how much of a text it is given, and what it is known by.

    No text is given to it in more than `max_tokens`, or than it reads.

    Of a teacher `labels` are what its head calls them, and `columns` where its logits have those of the task. Both are
    empty of a model that has the task's own, in their order.
    """

    name: str
    directory: Path
    digest: str
    max_tokens: int
    labels: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LearnedStage:
    """A stage of a student on this task: its settings, the digests of its examples, and the step that was selected."""

    settings: TaskStageConfig
    train: str
    dev: str
    selected_step: int | None


@dataclass(frozen=True, slots=True)
class AuditedTaskStudent(Audited):
    """A student of the run, as the training seed that did best on dev, and what it began as (None: with an empty head).

    `row` has the answers under every seed. `stages` are those that learned the task, the first one first.
    """

    model: HeadModel
    start: HeadModel | None
    stages: tuple[LearnedStage, ...]


@dataclass(frozen=True, slots=True)
class FinishedTaskRun:
    """A finished experiment that distils a task, with the rows that were compared on.

    `teacher` is None where it cannot be asked anything more, and `why_no_teacher` says why. `config` has real paths,
    and names the task as it was read, with the rows that were screened.
    """

    directory: Path
    config: TaskDistillConfig
    results: RunResults
    task: LoadedTask
    teacher: HeadModel | None
    why_no_teacher: str
    students: tuple[AuditedTaskStudent, ...]
    views: Mapping[str, str]

    @property
    def lessons(self) -> Path:
        """The folder with what students learned from."""
        return self.directory / "lessons"

    @property
    def teacher_row(self) -> ModelResults:
        """The row of the comparison that students are held against: of several teachers what they answer together."""
        return next(row for row in self.results.models if row.role == "teacher")

    @property
    def tested(self) -> tuple[Example, ...]:
        """The test examples that everybody answered."""
        rows = {example.row for example in self.students[0].row.tasks[0].examples}
        return tuple(example for example in self.task.test if example.row in rows)

    def models(self) -> dict[str, str]:
        """All models of the comparison and what they answered, by digest."""
        found = {f"model of {row.name}": row.digest for row in self.results.models}
        for row in self.results.models:
            said = [[each.row, each.seed, each.predicted] for each in row.tasks[0].examples]
            found[f"answers of {row.name}"] = digest_of(answers=said)
        return found

    def about_asking(self) -> list[str]:
        """What a reader has to know of who was asked."""
        notes = []
        if self.teacher is None:
            notes.append(f"the teacher was not asked about any text anew: {self.why_no_teacher}")
        several = [student.name for student in self.students if student.row.seeds > 1]
        if several:
            notes.append(f"of {', '.join(several)} the training seed that did best on dev was asked")
        return notes

    def row(self, name: str | None) -> ModelResults | None:
        """The row of the comparison of this name, if there is one."""
        return next((row for row in self.results.models if row.name == name), None)


def open_finished_task(directory: Path, report: Report) -> FinishedTaskRun:
    """A run whose students and rows are all there, as they were compared.

    Raises:
        ConfigError: a student, or the task's rows, are not what was compared.
        DataError: the task cannot be read any more.
    """
    resolved = directory / RESOLVED
    config = load_experiment(resolved if resolved.is_file() else directory / WRITTEN)
    assert isinstance(config, TaskDistillConfig), "only a task has results of one and no prompts"
    artifacts = Artifacts(directory.parent)
    # What the run's guard has said is kept, and it is not asked again.
    screening = Screening(screened_root(config), say=lambda _: None, guard=planned_guard(config))
    config = screened_task(config, screening).config
    task = _task_of(config, report.results, directory)
    rows = report.results.models
    found = [_student(row, config, artifacts, rows=rows) for row in rows if row.role == "student"]
    if not found:
        raise ConfigError(f"{directory}: no student of it was compared, so there is nothing to audit")
    teacher, why = _teacher(config, task, report, directory=directory, artifacts=artifacts)
    return FinishedTaskRun(
        directory, config, report.results, task, teacher, why, tuple(found), dict(report.rests_on.views)
    )


def _task_of(config: TaskDistillConfig, results: RunResults, directory: Path) -> LoadedTask:
    """The task, whose test rows are those that were answered; some of them may have been forgotten before."""
    task = load_learned_task(config.task, config.teacher_context)
    # A teacher that writes is shown more than the row: what stands in its answers is the question.
    answered = next((row.tasks[0].examples for row in results.models if row.role == "student"), ())
    known = {example.row: example for example in task.test}
    for example in answered:
        found = known.get(example.row)
        if found is None or (found.text, found.gold) != (example.shown, example.gold):
            raise ConfigError(
                f"{directory}: row {example.row} of the test split of task {task.config.name} is not what was "
                "compared any more: run the experiment again"
            )
    return task


def _student(
    row: ModelResults, config: TaskDistillConfig, artifacts: Artifacts, *, rows: tuple[ModelResults, ...]
) -> AuditedTaskStudent:
    settings, stages = _settings_of(row.name, config), _stages(row.digest, artifacts)
    if not stages:
        raise ConfigError(
            f"{artifacts.student_dir(row.digest)}: {row.name} is not what was compared any more: run the experiment "
            "again"
        )
    longest = settings.max_tokens or config.teacher.max_tokens
    start = next((each for each in rows if each.name == row.start), None)
    return AuditedTaskStudent(
        row=row,
        model=_model(row, artifacts.student_dir(row.digest), longest=longest),
        start=None if start is None else _model(start, artifacts.init_dir(start.digest), longest=longest),
        stages=tuple(stages),
    )


def _stages(digest: str, artifacts: Artifacts) -> list[LearnedStage]:
    """The stages of a student on the task, walked back from its last one; none where that is not what it was."""
    stages: list[LearnedStage] = []
    labels: object = None
    while (kept := artifacts.read_student(digest)) is not None:
        made_of, step = kept.get(MADE_OF), kept.get("selected_step")
        if not isinstance(made_of, dict) or (stages and made_of["labels"] != labels):
            break  # before it was a general stage, whose labels are tokens
        settings = TaskStageConfig.model_validate_json(json.dumps(made_of["stage"]))
        step = step if isinstance(step, int) else None
        stages.insert(0, LearnedStage(settings, made_of["train"], made_of["dev"], step))
        digest, labels = made_of["start"], made_of["labels"]
    return stages


def _settings_of(name: str, config: TaskDistillConfig) -> TaskStudentConfig:
    """The settings of a student; those of its other half where it learned without a teacher to be compared with."""
    for ending in ("", *WITHOUT_TEACHER):
        if name.endswith(ending) and name.removesuffix(ending) in config.students:
            return config.students[name.removesuffix(ending)]
    raise ConfigError(f"{name} is a student that the configuration does not name: run the experiment again")


def _model(row: ModelResults, directory: Path, *, longest: int) -> HeadModel:
    return HeadModel(row.name, directory, row.digest, longest)


def _teacher(
    config: TaskDistillConfig, task: LoadedTask, report: Report, *, directory: Path, artifacts: Artifacts
) -> tuple[HeadModel | None, str]:
    """The teacher as a model that can be asked about other texts, or why it cannot."""
    if config.teachers:
        return None, "several teachers were combined, and none of them alone is what students learned from"
    if config.teacher.answers != "head":
        return None, "the teacher writes its answers, and only engines ask it"
    if config.teacher_context is not None:
        return None, "the teacher was shown more than the rows (teacher_context), which is there for these rows alone"
    row = next(each for each in report.results.models if each.role == "teacher")
    noted = noted_prepared(directory).get(FIRST)
    prepared = artifacts.student_dir(noted) if config.teacher.prepare and noted is not None else None
    try:
        found = open_task_teacher(config, task.config, prepared=prepared)
    except DistillError as error:
        return None, f"the teacher's weights are not here ({first_line(error)})"
    if found.identity.digest() != row.digest:
        return None, f"{found.directory} does not hold the teacher that was asked any more"
    # A head for spans has no labels of its own.
    labels = () if task.config.kind == "extractive_qa" else found.model.labels
    return HeadModel(row.name, found.directory, row.digest, config.teacher.max_tokens, labels, found.columns), ""
