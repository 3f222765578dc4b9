"""The cluster of a run and its worker groups, there from the first need on: what all experiments compute with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from evaluation.results import Place
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.worker_group import GroupShape
from orchestration.pipeline.run import AnyRun, Journal
from orchestration.pipeline.session import Session
from student_train.job import StageJob, StepMetrics


class Workers:
    """Starts nothing before it is used. Cluster and worker groups end with `session`."""

    def __init__(self, run: AnyRun, journal: Journal, session: Session) -> None:
        self._run, self._journal, self._session = run, journal, session

    def need_cluster(self) -> None:
        """Start or attach to Ray, once. A pool of engines works only after this."""
        if self._session.attached:
            return
        run, runtime = self._run, self._run.config.runtime
        with self._journal.console.stage("ray", place="cluster") as stage:
            nodes = self._session.attach(runtime, device=run.device, gpus=run.hardware.gpus_per_node)
            stage.summary = f"attached to {nodes} nodes" if runtime.ray_address else "local, loopback only"

    def new_pool(self, spec: EngineSpec) -> EnginePool:
        """Engines that are not started yet; whoever asks for them ends them."""
        # Engines of a rollout work beside a group, and take nothing that a waiting one has.
        room = self.room if spec.purpose == "fill" else nullcontext
        costs = self._journal.console.costs
        whose: Place = "teacher" if spec.teaches else "student"
        return EnginePool(
            spec,
            clock=self._journal.ledger,
            room=room,
            joules=lambda: costs.meter.read().joules,
            started=self._journal.console.timeline.noting(f"{whose} engines start", place=whose),
        )

    def room(self) -> AbstractContextManager[None]:
        """For whatever is about to take CPUs or GPUs of the cluster: worker groups that only wait are ended."""
        return self._session.groups.room()

    def train(
        self,
        job: StageJob,
        *,
        on_step: Callable[[StepMetrics], None],
        meanwhile: Callable[[], None] | None = None,
        gpu_share: float = 1.0,
    ) -> dict[str, object]:
        """Train one stage in a worker group, one that is still there from another stage if it fits.

        Returns the fields of its `TrainResult`. `meanwhile` is called again and again as long as the group works. It
        makes rollouts, with engines that may be on the same GPUs, of which a worker takes the part `gpu_share`. An
        error of `on_step` or `meanwhile` ends the stage with a checkpoint, as an interrupt does in the main thread.

        May be called from several threads once the cluster is there (`need_cluster`): every stage has a group of its
        own, and waits as long as those of others take up the cluster.

        Raises:
            TrainingError: a worker failed; the checkpoint of the last save remains.
        """
        self.need_cluster()
        training = job.settings
        return self._session.groups.train(
            job,
            shape=GroupShape(training.workers, training.cpus_per_worker, self._run.device, gpu_share),
            log_dir=self._run.logs,
            on_step=on_step,
            meanwhile=meanwhile or _nothing,
            started=self._journal.console.timeline.noting("workers start", place="workers"),
        )


def _nothing() -> None:
    """What an off-policy stage needs from outside while it trains."""
