"""Does an experiment fit the memory of its machines? The same arithmetic as for GPUs, summed over what lives together.

On CPUs everything lies in the memory of the machine: weights, KV caches, the float32 copy and the moments of the
optimiser. On GPUs only what is offloaded does. What a process takes before it holds any model was measured
(docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from configs import ConfigError
from configs.schema import DistillConfig, EngineSettings, ModelShape, TrainingSettings
from orchestration.plan.hardware import GIB, Hardware, HostMemory
from orchestration.plan.memory import USABLE, MemoryFit, MemoryItem

ENGINE_GIB = 1.0
"""An engine's process on a CPU without weights, KV cache and logits: vLLM and what it imports, oneDNN's copies."""

WORKER_GIB = 0.7
"""A training worker on a CPU without its model: torch, DeepSpeed, Ray."""

PLAIN_GIB = 0.9
"""A process that runs a model with transformers, without the model."""

DRIVER_GIB = 2.5
"""The driver (which unpacks and cuts models) and Ray's own processes."""

FILL = "fill"
"""The phase in which the teacher is asked."""


@dataclass(frozen=True, slots=True)
class HostPhase:
    """What lives on one machine at the same time: names and bytes of its parts, and what makes them smaller."""

    label: str
    parts: tuple[MemoryItem, ...]
    cure: str

    @property
    def total_bytes(self) -> float:
        """Sum of the parts."""
        return sum(part.size_bytes for part in self.parts)


def engine_on_host(fit: MemoryFit, *, key: str, settings: EngineSettings) -> MemoryFit:
    """What an engine holds in the memory of its machine, where there is no GPU; `key` is its block."""
    cure = (
        f"lower {key}.kv_cache_gib={settings.kv_cache_gib:g}, max_batched_tokens={settings.max_batched_tokens} or "
        f"count={settings.count}"
    )
    return _on_host(fit, process_gib=ENGINE_GIB, cure=cure)


def worker_on_host(fit: MemoryFit, *, settings: TrainingSettings) -> MemoryFit:
    """What a training worker holds in the memory of its machine, where there is no GPU: what it offloads too."""
    fewer = f"lower workers={settings.workers} or " if settings.workers > 1 else "lower "
    spare = "" if settings.gradient_checkpointing else "set gradient_checkpointing: true, "
    cure = f"in runtime.training {spare}{fewer}micro_batch_tokens={settings.micro_batch_tokens}, or keep fewer layers"
    return _on_host(fit, process_gib=WORKER_GIB, cure=cure)


def _on_host(fit: MemoryFit, *, process_gib: float, cure: str) -> MemoryFit:
    process = MemoryItem("process", process_gib * GIB, f"{process_gib:g} GiB, measured")
    held = [item for item in (*fit.items, *fit.offloaded) if item.name != "runtime"]
    return replace(fit, items=(*held, process), offloaded=(), cure=cure)


def calibration_memory(teacher: ModelShape) -> MemoryItem:
    """The teacher in float32 while its activations are measured, and the student that is cut from it, on a CPU."""
    needed = 6.0 * teacher.parameters + PLAIN_GIB * GIB
    return MemoryItem("calibration", needed, f"{teacher.parameters:,} x (4 + 2) B + {PLAIN_GIB:g} GiB")


def host_phases(
    config: DistillConfig,
    *,
    teacher: ModelShape,
    engines: Mapping[str, MemoryFit],
    training: Mapping[str, Sequence[MemoryFit]],
    hardware: Hardware,
) -> tuple[HostPhase, ...]:
    """What lies in the memory of one machine, phase by phase; engines and workers are taken as spread evenly over them.

    `engines` holds the memory of the teacher's engine under "" (unless it is behind a door) and of the students' under
    their names, `training` that of a worker in every stage of a student. On GPUs only what stages offload is counted.
    """
    runtime, nodes = config.runtime, hardware.nodes
    if hardware.accelerator == "gpu":
        return _offloaded(config, training=training, hardware=hardware)

    def placed(fit: MemoryFit, count: int) -> MemoryItem:
        here = -(-count // nodes)
        return MemoryItem(fit.label, here * fit.total_bytes, f"{here} x {fit.total_bytes / GIB:.2f} GiB")

    driver = MemoryItem("driver", DRIVER_GIB * GIB, f"{DRIVER_GIB:g} GiB, measured")
    asked = [placed(engines[""], runtime.teacher_engine.count)] if "" in engines else []
    phases = [HostPhase(FILL, (*asked, driver), engines[""].cure)] if asked else []
    if any(student.init.calibrated for student in config.students.values()):
        cure = "choose layers_by: linspace, alternate or contiguous and no narrower widths, which need no calibration"
        phases.append(HostPhase("calibration", (calibration_memory(teacher), driver), cure))
    for name, stages in training.items():
        for stage, fit in zip(config.students[name].stages, stages, strict=True):
            parts = [placed(fit, runtime.training.workers), driver]
            if stage.rollout is not None and stage.rollout.replay_from is None:
                parts += [*asked, placed(engines[name], runtime.student_engine.count)]
            phases.append(HostPhase(f"training of {name}", tuple(parts), fit.cure))
        answering = placed(engines[name], runtime.student_engine.count)
        phases.append(HostPhase(f"answers of {name}", (answering, driver), engines[name].cure))
    return tuple(_largest(phases))


def check_host(phases: Sequence[HostPhase], *, memory: HostMemory | None, asks_teacher: bool) -> list[str]:
    """Warnings about what fits the machine but not what is free of it now.

    A teacher that is not asked needs no room: who learns from a full cache may do so on a small machine.

    Raises:
        ConfigError: a phase needs more than there is; names what it needs, what there is and the cure.
    """
    if memory is None:
        return []
    warnings = []
    for phase in phases:
        if phase.label == FILL and not asks_teacher:
            continue
        needed = phase.total_bytes / GIB
        terms = ", ".join(f"{part.name} {part.size_bytes / GIB:.1f}" for part in phase.parts)
        if needed > memory.total_gib * USABLE:
            raise ConfigError(
                f"{phase.label} needs {needed:.1f} GiB of memory on one machine but {memory.total_gib * USABLE:.1f} of "
                f"its {memory.total_gib:.1f} GiB are usable ({terms}): {phase.cure}"
            )
        if needed > memory.free_gib:
            warnings.append(
                f"{phase.label} needs {needed:.1f} GiB of memory and {memory.free_gib:.1f} GiB are free now ({terms}): "
                f"end other programs, or {phase.cure}"
            )
    return warnings


def _offloaded(
    config: DistillConfig, *, training: Mapping[str, Sequence[MemoryFit]], hardware: Hardware
) -> tuple[HostPhase, ...]:
    here = -(-config.runtime.training.workers // hardware.nodes)
    phases = []
    for name, stages in training.items():
        for fit in stages:
            parts = [
                replace(item, size_bytes=here * item.size_bytes, arithmetic=f"{here} x ({item.arithmetic})")
                for item in fit.offloaded
            ]
            if parts:
                phases.append(HostPhase(f"training of {name}, offloaded", tuple(parts), fit.cure))
    return tuple(_largest(phases))


def _largest(phases: Sequence[HostPhase]) -> list[HostPhase]:
    """Of phases that bear one label, which follow one another, the one that needs most."""
    found: dict[str, HostPhase] = {}
    for phase in phases:
        known = found.get(phase.label)
        if known is None or phase.total_bytes > known.total_bytes:
            found[phase.label] = phase
    return list(found.values())
