"""Where the models of a finished experiment lie: its teachers, its untouched starts, its students."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs import ConfigError, DistillConfig, load_config
from configs.places import RESOLVED, WRITTEN
from configs.stages import StudentConfig
from configs.teachers import key_of_teacher
from orchestration.comparison.report import read_report
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.foundations import RestsOn


@dataclass(frozen=True, slots=True)
class FinishedModel:
    """A row of a finished comparison as a model on disk: what it is known by, and what engines serve it in."""

    name: str
    role: str
    digest: str
    directory: Path
    dtype: str


def finished_config(run_dir: Path) -> DistillConfig:
    """The configuration of a run with its paths as they were found; as it was written where they are not kept.

    Raises:
        ConfigError: it cannot be read, or is that of an experiment that distils a task.
    """
    resolved = run_dir / RESOLVED
    return load_config(resolved if resolved.is_file() else run_dir / WRITTEN)


def finished_models(run_dir: Path) -> tuple[FinishedModel, ...]:
    """The models of a finished experiment, in the order of its table. That they are still there is not looked at.

    Raises:
        ConfigError: this is not the directory of a finished experiment.
        OutdatedError: what it holds is not what was written.
    """
    report = read_report(run_dir)
    if report is None:
        raise ConfigError(f"{run_dir} holds no finished comparison: name the run directory of a finished experiment")
    config, artifacts = finished_config(run_dir), Artifacts(run_dir.parent)
    found = []
    for row in report.results.models:
        if row.role == "teacher":
            directory = _loaded(report.rests_on, f"{key_of_teacher(row.name)}.model")
            dtype = config.every_teacher[row.name].dtype
        elif row.role == "student":
            directory, dtype = artifacts.student_dir(row.digest), config.students[row.name].stages[-1].dtype
        else:
            name, student = _started_from(row.name, config)
            derived = artifacts.init_dir(row.digest)
            directory = derived if derived.is_dir() else _loaded(report.rests_on, f"students.{name}.init.model")
            dtype = student.stages[0].dtype
        found.append(FinishedModel(row.name, row.role, row.digest, directory, dtype))
    return tuple(found)


def _loaded(rests_on: RestsOn, key: str) -> Path:
    if key not in rests_on.directories:
        raise ConfigError(f"{key}: the comparison does not say from where it was loaded: run the experiment again")
    return Path(rests_on.directories[key])


def _started_from(row: str, config: DistillConfig) -> tuple[str, StudentConfig]:
    """The student of "untouched (student)"; any, where one start serves them all."""
    name = row.removeprefix("untouched").strip(" ()") or next(iter(config.students))
    return name, config.students[name]
