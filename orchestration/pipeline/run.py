"""What the stages of one run share: configuration, places, the teacher, the terminal, the tracker, the cluster."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache import TeacherIdentity
from configs import DistillConfig
from configs.models import Device
from configs.places import is_url
from configs.schema import EngineSettings, ModelShape
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.nodes import require_gpus
from orchestration.cluster.planned_engine import engine_spec
from orchestration.cluster.private import cluster, probe_roots
from orchestration.fill.ledger import Ledger
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.plan.colocation import GPU_SHARES, PartKind
from orchestration.plan.hardware import Hardware
from orchestration.tracking.tracker import Tracker

ROLLOUT_SEEDS: dict[PartKind, int] = {"student engine": 1000, "teacher engine": 2000}
"""Of the first engine of student and teacher that write together: no engine of a run has the seed of another."""


@dataclass(slots=True)
class Run:
    """One run of one experiment; the paths of `config` are real, not as they were written."""

    config: DistillConfig
    directory: Path
    hardware: Hardware
    console: Console
    tracker: Tracker
    artifacts: Artifacts
    ledger: Ledger
    student_pool: tuple[tuple[ModelShape, str], EnginePool] | None = None
    _cluster: ExitStack = field(default_factory=ExitStack)
    _clustered: bool = False
    _pools: list[EnginePool] = field(default_factory=list)

    @property
    def device(self) -> Device:
        """What the run computes on."""
        return self.hardware.accelerator

    @property
    def logs(self) -> Path:
        """Where every process of this run writes its log."""
        # Absolute, because workers of a cluster have working directories of their own.
        return (self.directory / "logs").absolute()

    def need_cluster(self) -> None:
        """Start or attach to Ray, once."""
        if self._clustered:
            return
        runtime = self.config.runtime
        with self.console.stage("ray") as stage:
            self._cluster.enter_context(cluster(address=runtime.ray_address, gpus=self.hardware.gpus_per_node))
            if runtime.ray_address and self.device == "gpu":
                require_gpus(runtime.ray_address)
            roots = {"runtime.cache_root": runtime.cache_root, "runtime.run_root": runtime.run_root}
            nodes = probe_roots({key: Path(root) for key, root in roots.items() if not is_url(root)})
            stage.summary = f"attached to {nodes} nodes" if runtime.ray_address else "local, loopback only"
        self._clustered = True

    def pool(self, files: ModelFiles, identity: TeacherIdentity, *, settings: EngineSettings, k: int) -> EnginePool:
        """A pool of engines for a model; it is released with the run at the latest."""
        spec = engine_spec(
            self.config, files, identity, settings=settings, k=k, accelerator=self.device, log_dir=self.logs
        )
        if k:
            # Whoever has beliefs worth keeping is a teacher, and what it is asked is counted.
            spec = replace(spec, ledger=self.ledger.directory.absolute())
        pool = EnginePool(spec, clock=self.ledger)
        self._pools.append(pool)
        return pool

    def rollout_pools(
        self, *, student: ModelFiles, learner: TeacherIdentity, teacher: Teacher
    ) -> tuple[EnginePool, EnginePool]:
        """Engines of a student and of its teacher that live side by side, and beside a worker group."""
        runtime = self.config.runtime
        pools = []
        role: PartKind
        for role, files, identity, settings, k in (
            ("student engine", student, learner, runtime.student_engine, 0),
            ("teacher engine", teacher.files, teacher.identity, runtime.teacher_engine, self.config.teacher.top_k),
        ):
            spec = engine_spec(
                self.config, files, identity, settings=settings, k=k, accelerator=self.device, log_dir=self.logs
            )
            spec = replace(
                spec,
                purpose="shared rollout" if self.shares_gpus else "rollout",
                seed=ROLLOUT_SEEDS[role],
                name=role.replace(" ", "-"),
                gpu_share=self.gpu_share(role),
            )
            pools.append(EnginePool(spec, clock=self.ledger))
        self._pools += pools
        return pools[0], pools[1]

    @property
    def shares_gpus(self) -> bool:
        """Whether the worker group and the engines of an on-policy stage take turns on the same GPUs."""
        return self.config.runtime.colocate and self.device == "gpu"

    def gpu_share(self, role: PartKind) -> float:
        """The part of a GPU that a process of an on-policy stage takes in Ray's books."""
        return GPU_SHARES[role] if self.shares_gpus else 1.0

    def close(self) -> None:
        """End the engines, then the cluster that holds them."""
        try:
            for pool in self._pools:
                pool.release()
        finally:
            self.ledger.close()
            self._cluster.close()
