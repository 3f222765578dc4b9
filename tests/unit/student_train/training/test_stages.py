"""Which learner belongs to which job."""

from __future__ import annotations

from student_train import job
from student_train.training.stages import LEARNERS


def test_every_kind_of_job_has_its_learner() -> None:
    kinds = {value for value in vars(job).values() if isinstance(value, type) and issubclass(value, job.StageJob)}
    assert set(LEARNERS) == kinds - {job.StageJob}
