"""A finished run as an audit reads it: its students, what each of them began as, and their teacher.

Nothing is believed because it lies there: a student has to be the one that was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs import ConfigError, DistillConfig
from configs.model_files import has_weights
from configs.places import WRITTEN
from configs.stages import StudentConfig
from configs.teachers import FIRST
from evaluation.results import ModelResults, RunResults
from orchestration.comparison.finished_models import FinishedModel, finished_config, finished_models
from orchestration.comparison.report import Report, read_report
from orchestration.outputs.artifacts import Artifacts


@dataclass(frozen=True, slots=True)
class Audited:
    """A student of a finished run, by its row of the comparison."""

    row: ModelResults

    @property
    def name(self) -> str:
        """What the comparison calls it."""
        return self.row.name

    @property
    def method(self) -> str:
        """The objectives of its stages."""
        return self.row.method


@dataclass(frozen=True, slots=True)
class AuditedStudent(Audited):
    """A student of a language model, and what it began as (None where that was not compared).

    `selected_step` is the last step of its last stage that is in its weights; None where nobody noted it.
    """

    model: FinishedModel
    start: FinishedModel | None
    settings: StudentConfig
    selected_step: int | None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished experiment of a language model. `teacher` is the first one; `views` are digests by file."""

    directory: Path
    config: DistillConfig
    results: RunResults
    teacher: FinishedModel
    students: tuple[AuditedStudent, ...]
    views: Mapping[str, str]

    @property
    def teacher_answers(self) -> tuple[str, ...]:
        """The teacher's answers to the test prompts: those of its row, or the cached ones that students learn by."""
        row = next(row for row in self.results.models if row.name == self.teacher.name)
        return row.answers or self.results.references

    @property
    def why_no_teacher_weights(self) -> str | None:
        """Why the teacher cannot be asked anything more; None where its weights are on this machine."""
        if self.config.teachers:
            return "several teachers were combined, and none of them alone is what students learned from"
        directory = self.teacher.directory
        return None if has_weights(directory) else f"the weights of the teacher are not in {directory}"


def finished_report(directory: Path) -> Report:
    """The report of a finished run, whatever it distils.

    Raises:
        ConfigError: this is not a run, or it is not finished.
    """
    report = read_report(directory)
    if report is None:
        if (directory / WRITTEN).is_file():
            raise ConfigError(
                f"{directory} is not finished: `distill run` with the config that is in it ({WRITTEN}) goes on with it"
            )
        raise ConfigError(f"{directory} is not a run directory: name the directory of a finished run")
    return report


def open_finished(directory: Path) -> FinishedRun:
    """A run whose students are all there, as they were compared.

    Raises:
        ConfigError: this is not a run of a language model, it is not finished, or a student is not what it was.
    """
    report = finished_report(directory)
    config, artifacts = finished_config(directory), Artifacts(directory.parent)
    models = {model.name: model for model in finished_models(directory)}
    students = [
        AuditedStudent(
            row=row,
            model=models[row.name],
            start=None if row.start is None else models.get(row.start),
            settings=config.students[row.name],
            selected_step=_selected_step(row, models[row.name], artifacts=artifacts),
        )
        for row in report.results.models
        if row.role == "student"
    ]
    if not students:
        raise ConfigError(f"{directory}: no student of it was compared, so there is nothing to audit")
    return FinishedRun(directory, config, report.results, models[FIRST], tuple(students), dict(report.rests_on.views))


def _selected_step(row: ModelResults, model: FinishedModel, *, artifacts: Artifacts) -> int | None:
    """The step of its last stage that a student holds, from what was kept with it."""
    kept = artifacts.read_student(row.digest)
    if kept is None:
        raise ConfigError(f"{model.directory}: {row.name} is not what was compared any more: run the experiment again")
    step = kept.get("selected_step")
    return step if isinstance(step, int) else None
