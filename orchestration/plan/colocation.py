"""Parts of an experiment that live at the same time: the GPUs that they need, and how they share them.

A student that learns from what it writes has its worker group, its own engines and those of the teacher at work
together. On GPUs each of them has GPUs of its own, or, with `runtime.colocate`, the engines lie beside the workers on
theirs and sleep while these train (docs/decisions/0013-rollouts.md). On CPUs none of this matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from configs import ConfigError
from configs.rollouts import RolloutConfig
from configs.schema import DistillConfig
from orchestration.plan.hardware import Hardware

PartKind = Literal["teacher engine", "training worker", "student engine"]

GPU_SHARES: dict[PartKind, float] = {"training worker": 0.6, "teacher engine": 0.25, "student engine": 0.15}
"""Parts of a GPU that the three take in Ray's books where they share it: together they fill it.

No GPU holds two workers. The workers are placed before any engine (`worker_group.train_in_group`), the teacher's
engines before the student's (`rollout_maker.RolloutMaker`), and Ray takes the fullest GPU that has room. So beside a
worker there is room for one of the teacher's engines, and after that for one of the student's. Only where the teacher
has fewer engines than there are workers may two of the student's engines lie beside one worker: to rule out two of
either, each would have to take more than half of what the worker leaves. `memory.shared_memory` plans for that.
"""


def require_room_together(config: DistillConfig, hardware: Hardware) -> None:
    """Refuse rollouts whose worker group and engines cannot all have GPUs at the same time: they would wait forever.

    Raises:
        ConfigError: naming the keys, their values and the cure.
    """
    rollouts = {
        f"students.{name}.stages.{number}": stage.rollout
        for name, student in config.students.items()
        for number, stage in enumerate(student.stages)
        if stage.rollout is not None
    }
    if hardware.accelerator == "cpu" or not rollouts:
        return
    if config.runtime.colocate:
        _require_turns(config, rollouts)
        _require_shared_room(config, hardware, key=next(iter(rollouts)))
    else:
        _require_own_room(config, hardware, key=next(iter(rollouts)))


def _require_own_room(config: DistillConfig, hardware: Hardware, *, key: str) -> None:
    runtime = config.runtime
    teacher, student = (engine.count * engine.ranks for engine in (runtime.teacher_engine, runtime.student_engine))
    if config.teacher.elsewhere is not None:  # its GPUs are somebody else's
        teacher = 0
    needed, there = runtime.training.workers + teacher + student, hardware.nodes * hardware.gpus_per_node
    if needed > there:
        raise ConfigError(
            f"{key} learns while engines write for it, on {needed} GPUs at once: "
            f"runtime.training.workers={runtime.training.workers}, {teacher} of runtime.teacher_engine and "
            f"{student} of runtime.student_engine (count x tensor_parallel x pipeline_parallel), but there are "
            f"{there}: lower one of them, or set runtime.colocate: true to let them take turns on the same GPUs"
        )


def _require_turns(config: DistillConfig, rollouts: Mapping[str, RolloutConfig]) -> None:
    """Refuse settings by which engines and worker group would work at the same time."""
    for key, rollout in rollouts.items():
        if rollout.ahead:
            raise ConfigError(
                f"{key}.rollout.ahead=true has engines write while the student learns, but with runtime.colocate=true "
                "they take turns: remove one of the two"
            )
    if config.runtime.training.weight_sync == "broadcast":
        raise ConfigError(
            "runtime.training.weight_sync=broadcast joins worker and engine by NCCL, which refuses two processes on "
            "one GPU, but runtime.colocate=true puts them there: set weight_sync: files"
        )


def _require_shared_room(config: DistillConfig, hardware: Hardware, *, key: str) -> None:
    """Refuse engines that cannot share the GPU of a worker; `GPU_SHARES` keeps them apart from one another."""
    runtime, workers = config.runtime, config.runtime.training.workers
    engines = {"teacher_engine": runtime.teacher_engine, "student_engine": runtime.student_engine}
    if config.teacher.elsewhere is not None:
        del engines["teacher_engine"]
    for field, engine in engines.items():
        if engine.ranks > 1:
            split = "tensor_parallel" if engine.tensor_parallel > 1 else "pipeline_parallel"
            raise ConfigError(
                f"runtime.{field}.{split}={getattr(engine, split)} with runtime.colocate=true: Ray divides "
                f"single GPUs only, and {key} needs parts of them: set it to 1, or colocate: false"
            )
        if engine.count > workers:
            raise ConfigError(
                f"runtime.{field}.count={engine.count} is more than runtime.training.workers={workers}, whose GPUs the "
                f"engines of {key} share (runtime.colocate=true): lower the first or raise the second"
            )
    there = hardware.nodes * hardware.gpus_per_node
    if hardware.nodes > 1 and workers < there:
        # Ray might choose a node without workers and put several engines on one of its GPUs.
        raise ConfigError(
            f"runtime.training.workers={workers} leaves GPUs of runtime.nodes={hardware.nodes} without a worker, and "
            f"engines of {key} run only beside one (runtime.colocate=true): set workers to {there}, or lower nodes"
        )
