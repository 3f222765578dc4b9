"""What a run computes with: engines, worker groups and tasks of a Ray cluster that is there from the first need on."""

from __future__ import annotations

from dataclasses import replace

from cache import TeacherIdentity
from configs import DistillError
from configs.models import ModelShape
from configs.schema import EngineSettings
from evaluation.results import Closeness, Exposure
from orchestration.cluster.calibration import DeriveJob, derive_in_worker
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.exposure_scoring import ExposureJob, score_exposure
from orchestration.cluster.planned_engine import engine_spec
from orchestration.cluster.scoring import ScoringJob, score_students
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.session import Session
from orchestration.pipeline.workers import Workers
from orchestration.plan.colocation import PartKind

ROLLOUT_SEEDS: dict[PartKind, int] = {"student engine": 1000, "teacher engine": 2000}
"""Of the first engine of student and teacher that write together: no engine of a run has the seed of another."""

TASK_CPUS = 2
"""Of a calibration, and of held-out scoring."""


class Compute(Workers):
    """Starts nothing before it is used. Whoever tests a stage gives it one without Ray.

    Engines end with the experiment at the latest.
    """

    def __init__(self, settings: RunSettings, journal: Journal, session: Session) -> None:
        super().__init__(settings, journal, session)
        self._settings = settings
        self._pools: list[EnginePool | DoorPool] = []
        self._answering: tuple[tuple[ModelShape, str, int], EnginePool] | None = None

    def teacher_pool(self, teacher: Teacher) -> EnginePool | DoorPool:
        """Engines of a teacher, or its door; what they are asked is counted. Released with the run at the latest."""
        config, ledger = self._settings.config, self._journal.ledger
        if teacher.door is not None:
            return self._door_pool(teacher)
        # The most that any of several teachers is asked for.
        k = max(each.top_k for each in config.every_teacher.values())
        spec = self._spec(teacher.files, teacher.by_weights, engine=config.runtime.teacher_engine, k=k)
        return self._pool(replace(spec, ledger=ledger.directory.absolute(), teaches=True))

    def student_pool(self, files: ModelFiles, identity: TeacherIdentity) -> EnginePool:
        """Engines that serve a student: the running ones if they serve this shape in this dtype, else new."""
        served = files.shape, identity.dtype, files.vocab
        if self._answering is None or self._answering[0] != served:
            if self._answering is not None:
                self._answering[1].release()
            config = self._settings.config
            spec = self._spec(files, identity, engine=config.runtime.student_engine, k=config.teacher.top_k)
            self._answering = served, self._pool(spec)
        return self._answering[1]

    def rollout_pools(
        self, *, student: ModelFiles, learner: TeacherIdentity, teacher: Teacher
    ) -> tuple[EnginePool, EnginePool | DoorPool]:
        """Engines of a student and of its teacher (or its door) that live side by side, and beside a worker group."""
        config = self._settings.config
        runtime = config.runtime
        writes = self._spec(student, learner, engine=runtime.student_engine, k=0)
        if teacher.door is not None:
            return self._rollout_pool("student engine", writes), self._door_pool(teacher)
        scores = self._spec(teacher.files, teacher.by_weights, engine=runtime.teacher_engine, k=config.teacher.top_k)
        teaches = replace(scores, teaches=True)
        return self._rollout_pool("student engine", writes), self._rollout_pool("teacher engine", teaches)

    def derive(self, job: DeriveJob) -> None:
        """Calibrate a teacher and derive a student of it.

        Raises:
            ModelError: the teacher could not be measured or cut.
        """
        self.need_cluster()
        with self.room():
            derive_in_worker(job, cpus=TASK_CPUS)

    def score(self, jobs: list[ScoringJob]) -> list[Closeness | DistillError]:
        """Score models on a view, one after the other in one process; of one that cannot be scored, why.

        Raises:
            TrainingError: the process died.
        """
        self.need_cluster()
        with self.room():
            return score_students(jobs, cpus=TASK_CPUS)

    def score_exposure(self, job: ExposureJob) -> list[Exposure | DistillError]:
        """Read the answers of models with each of them and with the teacher, in one process.

        Raises:
            ModelError: the teacher cannot be loaded.
            TrainingError: the process died.
        """
        self.need_cluster()
        with self.room():
            return score_exposure(job, cpus=TASK_CPUS)

    def close(self) -> None:
        """End the engines."""
        for pool in self._pools:
            pool.release()

    def _spec(self, files: ModelFiles, identity: TeacherIdentity, *, engine: EngineSettings, k: int) -> EngineSpec:
        settings = self._settings
        return engine_spec(
            files,
            identity,
            settings=engine,
            k=k,
            accelerator=settings.device,
            log_dir=settings.logs,
        )

    def _door_pool(self, teacher: Teacher) -> DoorPool:
        assert teacher.door is not None
        ledger = self._journal.ledger.directory.absolute()
        pool = DoorPool(teacher.door, teacher.identity, vocab=teacher.files.vocab, ledger=ledger)
        self._pools.append(pool)
        return pool

    def _pool(self, spec: EngineSpec) -> EnginePool:
        pool = self.new_pool(spec)
        self._pools.append(pool)
        return pool

    def _rollout_pool(self, role: PartKind, spec: EngineSpec) -> EnginePool:
        settings = self._settings
        return self._pool(
            replace(
                spec,
                purpose="shared rollout" if settings.shares_gpus else "rollout",
                seed=ROLLOUT_SEEDS[role],
                name=role.replace(" ", "-"),
                gpu_share=settings.gpu_share(role),
            )
        )
