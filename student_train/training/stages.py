"""One stage of whatever kind: which learner belongs to which job."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from student_train.job import GeneralJob, StageJob, TaskJob, TrainJob, TrainResult
from student_train.training.general import GeneralLearner
from student_train.training.learner import Learner
from student_train.training.sequences import SequenceLearner
from student_train.training.state import MetricsReport
from student_train.training.stopping import ShouldStop
from student_train.training.tasks import TaskLearner
from student_train.training.trainer import train

LEARNERS: Mapping[type[StageJob], type[Learner]] = MappingProxyType(
    {TrainJob: SequenceLearner, TaskJob: TaskLearner, GeneralJob: GeneralLearner}
)
"""What learns the stage of each kind of job."""


def train_stage(job: StageJob, *, report: MetricsReport, should_stop: ShouldStop) -> TrainResult:
    """Train one stage and export the student; to be called in every process of the worker group.

    Resumes from the newest sound checkpoint of `job.work_dir`. `report` is called on every process with the same
    metrics (but for wall times and memory, which are each process's own); after a resume it gets those of the last
    checkpoint again. When `should_stop` says so on any process, or one of them gets SIGTERM in its main thread, all of
    them write a checkpoint and return with `finished` False.

    Raises:
        ConfigError: the checkpoint belongs to other data, another stage or another ZeRO stage.
        DistillError: stage, data and student do not go together (`student_train.training.readiness`,
            `task_readiness`).
        TrainingError: no finite gradient for ten steps in a row.
    """
    return train(job, kind=LEARNERS[type(job)], report=report, should_stop=should_stop)
