"""What the stages of one run share: configuration, places, the teacher, the terminal, the tracker, the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache import TeacherCache, TeacherIdentity
from cache.fingerprint import fingerprint_model
from configs import DistillConfig
from configs.models import Device
from configs.places import FINGERPRINTS, is_url
from configs.schema import DataConfig, EngineSettings, ModelShape
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.nodes import require_gpus
from orchestration.cluster.private import cluster, probe_roots
from orchestration.fill.ledger import Ledger
from orchestration.fill.refusals import Refusals
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.preflight import require_fitting_lengths, require_positions, require_servable
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.plan.bundles import Role
from orchestration.plan.colocation import GPU_SHARES
from orchestration.plan.host_memory import engine_on_host
from orchestration.plan.machine import VLLM, installed_version
from orchestration.plan.memory import engine_memory
from orchestration.plan.placement import Hardware
from orchestration.tracking.tracker import Tracker

ROLLOUT_SEEDS: dict[Role, int] = {"student engine": 1000, "teacher engine": 2000}
"""Of the first engine of student and teacher that write together: no engine of a run has the seed of another."""

STUDENT_LOGPROBS = 1
"""Student engines only write answers; vLLM wants a positive limit."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher's files and who it is."""

    files: ModelFiles
    identity: TeacherIdentity

    def provenance(self, config: DistillConfig) -> dict[str, str]:
        """What every manifest records and no key depends on."""
        data = config.data
        return {
            "model": self.files.label,
            "tokenizer": type(self.files.tokenizer).__name__,
            **_template(data),
            "dataset": str(data.train.hub or data.train.path),
            "vllm": installed_version(*VLLM),
            "stillroom": installed_version("stillroom"),
        }


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
        role: Role
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

    def gpu_share(self, role: Role) -> float:
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


def engine_spec(
    config: DistillConfig,
    files: ModelFiles,
    identity: TeacherIdentity,
    *,
    settings: EngineSettings,
    k: int,
    accelerator: Device,
    log_dir: Path,
) -> EngineSpec:
    """What an engine of a model needs to know; with k = 0 the model only writes."""
    key = "runtime.teacher_engine" if k else "runtime.student_engine"
    shape = PlannedShape(files.label, files.shape, assumed=False)
    memory = engine_memory(
        shape,
        label="engine",
        key=key,
        settings=settings,
        dtype=config.teacher.dtype,
        quantization=identity.quantization,
    )
    return EngineSpec(
        model_dir=files.directory.resolve(),
        identity=identity,
        vocab=files.vocab,
        dtype=identity.dtype,
        quantization=identity.quantization,
        settings=settings,
        max_logprobs=max(k, STUDENT_LOGPROBS),
        accelerator=accelerator,
        log_dir=log_dir,
        memory=engine_on_host(memory, key=key, settings=settings) if accelerator == "cpu" else memory,
    )


def open_teacher(config: DistillConfig, *, progress: Callable[[int, int], None] | None = None) -> Teacher:
    """Make the teacher's directory if need be, and compute its identity; `progress` is told (bytes hashed, in all).

    Raises:
        ModelError: it cannot be found, loaded or fingerprinted.
        ConfigError: the experiment asks for more than it can do.
    """
    models_root = config.runtime.models_root
    files = materialise(config.teacher.model, models_root=models_root)
    # The rows of its matrix beyond the tokenizer's length are padding: no k may count on them.
    require_fitting_lengths(config, teacher=files.shape.model_copy(update={"vocab": files.vocab}))
    require_positions(config, model="the teacher", shape=files.shape, engine="teacher_engine")
    require_servable(config, teacher=files)
    teacher = config.teacher
    return Teacher(
        files,
        identity_of(files, config=config, dtype=teacher.dtype, quantization=teacher.quantization, progress=progress),
    )


def identity_of(
    files: ModelFiles,
    *,
    config: DistillConfig,
    dtype: str,
    quantization: str | None = None,
    remember: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherIdentity:
    """Who a model is when it is served in this dtype: the teacher's own, or that of a student's stage.

    Without `remember` nothing is kept of what its files hashed to: for weights that live for one rollout.
    """
    memo = config.runtime.models_root / FINGERPRINTS
    prints = fingerprint_model(files.directory, memo=memo if remember else None, progress=progress)
    return TeacherIdentity(
        weights_sha256=prints.weights_sha256,
        config_sha256=prints.config_sha256,
        dtype=dtype,
        quantization=quantization,
    )


def open_cache(config: DistillConfig, teacher: Teacher) -> TeacherCache:
    """The teacher's part of the cache."""
    return TeacherCache.open(config.runtime.cache_root, teacher.identity, provenance=teacher.provenance(config))


def open_refusals(config: DistillConfig, teacher: Teacher) -> Refusals:
    """What the teacher could not answer in this and earlier experiments of the run root, on these terms."""
    terms = {
        "max_model_len": config.runtime.teacher_engine.max_model_len,
        "top_k": config.teacher.top_k,
        "vllm": installed_version(*VLLM),
    }
    return Refusals(config.runtime.run_root, identity=teacher.identity.digest(), terms=json.dumps(terms))


def _template(data: DataConfig) -> dict[str, str]:
    """What prompts were rendered with, as far as the configuration says it."""
    said: dict[str, str] = {"template": data.template}
    if data.template == "chat":
        said["template_date"] = data.date_of_templates.isoformat()
    if data.chat_template is not None:
        said["chat_template"] = data.chat_template
    if data.template_kwargs:
        said["template_kwargs"] = json.dumps(data.template_kwargs, sort_keys=True)
    return said
