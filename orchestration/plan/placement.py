"""Which part of an experiment runs on which GPU, and whether it fits there. Pure arithmetic, nothing is started.

An experiment has three phases that follow one another and may use the same GPUs: teacher engines fill the cache,
a group of workers trains, student engines write the answers that are compared. A student that learns from what it
writes itself needs all three at once, on GPUs of their own or in turns on the same (`colocation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs import ConfigError
from configs.schema import DistillConfig, EngineSettings, ModelShape
from configs.stages import StageConfig
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.bundles import Bundle, Hardware, place_engines, place_workers
from orchestration.plan.colocation import require_room_together
from orchestration.plan.duration import FillTime
from orchestration.plan.host_memory import HostPhase, engine_on_host, host_phases, memory_lines, worker_on_host
from orchestration.plan.memory import (
    DTYPE_BYTES,
    GIB,
    USABLE,
    MemoryFit,
    MemoryItem,
    engine_memory,
    kv_tokens,
    shared_memory,
    training_memory,
)

__all__ = ["Bundle", "Hardware", "Placement", "memory_fit", "plan_placement", "render_placement"]

_TEACHER_KEY = "runtime.teacher_engine"
_STUDENT_KEY = "runtime.student_engine"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything runs, what every GPU or process holds, what lies on one machine at a time, what is unchecked."""

    hardware: Hardware
    bundles: tuple[Bundle, ...]
    fits: tuple[MemoryFit, ...]
    notes: tuple[str, ...]
    phases: tuple[HostPhase, ...] = ()


def plan_placement(
    config: DistillConfig,
    *,
    teacher: PlannedShape,
    students: Mapping[str, PlannedShape | None],
    hardware: Hardware,
) -> Placement:
    """Place all bundles and check that they fit.

    `students` maps every student to its shape, or None when it is not known before a download.

    Raises:
        ConfigError: too few GPUs or CPUs, heads that cannot be split, or too little memory; names keys and cure.
    """
    runtime = config.runtime
    _check_layers(config, teacher)
    dtype = config.teacher.dtype
    _check_engine(runtime.teacher_engine, key=_TEACHER_KEY, who="the teacher", shape=teacher.shape, dtype=dtype)
    for name, student in students.items():
        if student is not None:
            who, served_in = f"students.{name}", _served_in(config.students[name].stages)
            _check_engine(runtime.student_engine, key=_STUDENT_KEY, who=who, shape=student.shape, dtype=served_in)
    bundles = [
        *place_engines("teacher engine", runtime.teacher_engine, key=_TEACHER_KEY, hardware=hardware),
        *place_workers(runtime.training, hardware=hardware),
        *place_engines("student engine", runtime.student_engine, key=_STUDENT_KEY, hardware=hardware),
    ]
    require_room_together(config, hardware)
    on_gpu = hardware.accelerator == "gpu"
    parts = _parts(config, teacher=teacher, students=students, hardware=hardware)
    fits = parts.listed(config, shared=on_gpu and runtime.colocate)
    if on_gpu:
        for fit in fits:
            _check_fit(fit, hardware)
    phases = host_phases(
        config, teacher=teacher.shape, engines=parts.engines, training=parts.training, hardware=hardware
    )
    return Placement(hardware, tuple(bundles), fits, _notes(config, students, hardware), phases)


def memory_fit(
    config: DistillConfig,
    *,
    teacher: PlannedShape,
    students: Mapping[str, PlannedShape | None],
    shared: bool = False,
) -> tuple[MemoryFit, ...]:
    """The memory of one GPU for the teacher's engine, and for every known student's costliest stage and engine.

    With `shared` also for what an on-policy stage and its engines hold together.
    """
    return _parts(config, teacher=teacher, students=students, hardware=Hardware("gpu")).listed(config, shared=shared)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The memory of every engine (the teacher's under "") and of a worker in every stage of each known student."""

    engines: Mapping[str, MemoryFit]
    training: Mapping[str, list[MemoryFit]]

    def listed(self, config: DistillConfig, *, shared: bool) -> tuple[MemoryFit, ...]:
        fits = [self.engines[""]]
        for name, training in self.training.items():
            fits += [max(training, key=_total_bytes), self.engines[name]]
            stages = config.students[name].stages
            beside = [fit for fit, stage in zip(training, stages, strict=True) if shared and stage.rollout is not None]
            together = [
                shared_memory(
                    fit,
                    teacher=fits[0],
                    student=self.engines[name],
                    label=f"shared GPU, {name}",
                    runtime=config.runtime,
                )
                for fit in beside
            ]
            fits += [max(together, key=_total_bytes)] if together else []
        return tuple(fits)


def _parts(
    config: DistillConfig,
    *,
    teacher: PlannedShape,
    students: Mapping[str, PlannedShape | None],
    hardware: Hardware,
) -> _Parts:
    runtime, on_cpu = config.runtime, hardware.accelerator == "cpu"

    def engine(shape: PlannedShape, label: str, key: str, *, dtype: str, quantization: str | None) -> MemoryFit:
        settings: EngineSettings = getattr(runtime, key.rpartition(".")[2])
        fit = engine_memory(shape, label=label, key=key, settings=settings, dtype=dtype, quantization=quantization)
        return engine_on_host(fit, key=key, settings=settings) if on_cpu else fit

    def worker(shape: PlannedShape, name: str, stage: StageConfig) -> MemoryFit:
        fit = training_memory(shape, label=f"training worker, {name}", settings=runtime.training, stage=stage)
        return worker_on_host(fit, settings=runtime.training) if on_cpu else fit

    teaching = config.teacher
    engines = {
        "": engine(teacher, "teacher engine", _TEACHER_KEY, dtype=teaching.dtype, quantization=teaching.quantization)
    }
    training = {}
    for name, shape in students.items():
        if shape is not None:
            stages = config.students[name].stages
            training[name] = [worker(shape, name, stage) for stage in stages]
            engines[name] = engine(
                shape, f"student engine, {name}", _STUDENT_KEY, dtype=_served_in(stages), quantization=None
            )
    return _Parts(engines, training)


def _served_in(stages: Sequence[StageConfig]) -> str:
    """The widest dtype that an engine of a student runs in: that of each stage, for its start, rollouts and result."""
    return max((stage.dtype for stage in stages), key=lambda dtype: DTYPE_BYTES[dtype])


def render_placement(placement: Placement, *, fill: FillTime | None = None) -> list[str]:
    """The placement as lines for people; numbers that rest on an assumed shape are marked."""
    hardware = placement.hardware
    lines = [_hardware_line(hardware)]
    for role in dict.fromkeys(bundle.role for bundle in placement.bundles):
        same = [bundle for bundle in placement.bundles if bundle.role == role]
        lines.append(f"  {role}s: " + _places_text(same))
    unit = "GPU" if hardware.accelerator == "gpu" else "process"
    room = f" of {hardware.gpu_memory_gib * USABLE:.1f} usable" if hardware.accelerator == "gpu" else ""
    for fit, names in _distinct(placement.fits):
        lines.append(f"  {names}: {fit.total_bytes / GIB:.2f} GiB{room} a {unit}{_mark(assumed=fit.assumed)}")
        for item in fit.items:
            lines.append(f"    {item.name:<11} {item.size_bytes / GIB:8.2f} GiB  {item.arithmetic}")
    lines += memory_lines(placement.phases, memory=hardware.memory)
    if fill is not None:
        spent = f", {fill.gpu_hours:.1f} GPU hours" if fill.gpus else ""
        lines.append(
            f"  fill: about {_duration(fill.seconds)}{spent} "
            f"(reads {fill.read_rate:,.0f}, writes {fill.write_rate:,.0f} tokens/s){_mark(assumed=fill.assumed)}"
        )
    return lines + [f"  note: {note}" for note in placement.notes]


def _check_layers(config: DistillConfig, teacher: PlannedShape) -> None:
    layers = teacher.shape.layers
    for name, student in config.students.items():
        kept = student.init.keep_layers
        key = f"students.{name}.init.keep_layers"
        if isinstance(kept, int) and kept > layers:
            raise ConfigError(f"{key}={kept} but the teacher has {layers} layers: keep at most {layers}")
        if isinstance(kept, tuple) and kept[-1] >= layers:
            raise ConfigError(f"{key} names layer {kept[-1]} but the teacher's last layer is {layers - 1}: lower it")


def _check_engine(settings: EngineSettings, *, key: str, who: str, shape: ModelShape, dtype: str) -> None:
    """Refuse what the engine itself would refuse, minutes later: an uneven split, a cache too small for one row."""
    split = settings.tensor_parallel
    if not _splits_evenly(shape, split):
        fine = ", ".join(str(ways) for ways in range(1, 2 * split) if _splits_evenly(shape, ways))
        raise ConfigError(
            f"{key}.tensor_parallel={split} does not divide {who} (heads={shape.heads}, kv_heads={shape.kv_heads}, "
            f"mlp={shape.mlp}): set it to one of {fine}"
        )
    held = kv_tokens(shape, settings=settings, dtype=dtype)
    if held < settings.max_model_len:
        raise ConfigError(
            f"{key}.kv_cache_gib={settings.kv_cache_gib:g} holds {held} tokens of {who} but "
            f"{key}.max_model_len={settings.max_model_len}: raise the first or lower the second"
        )


def _splits_evenly(shape: ModelShape, ways: int) -> bool:
    """Whole heads and equal slices for every rank; few key-value heads may be repeated, a whole number of times."""
    kv_fine = shape.kv_heads % ways == 0 or ways % shape.kv_heads == 0
    return shape.heads % ways == 0 and shape.mlp % ways == 0 and kv_fine


def _check_fit(fit: MemoryFit, hardware: Hardware) -> None:
    if fit.fits(memory_gib=hardware.gpu_memory_gib):
        return
    terms = ", ".join(f"{item.name} {item.size_bytes / GIB:.1f}" for item in fit.items)
    raise ConfigError(
        f"{fit.label} needs {fit.total_bytes / GIB:.1f} GiB a GPU{_mark(assumed=fit.assumed)} but "
        f"{hardware.gpu_memory_gib * USABLE:.1f} of runtime.gpu_memory_gib={hardware.gpu_memory_gib:g} are usable "
        f"({terms}): {fit.cure}"
    )


def _notes(config: DistillConfig, students: Mapping[str, PlannedShape | None], hardware: Hardware) -> tuple[str, ...]:
    notes = [
        f"students.{name}: its model is not at hand and has no shape block, so its memory was not checked"
        for name, shape in students.items()
        if shape is None
    ]
    width = config.runtime.teacher_engine.tensor_parallel
    idle = hardware.gpus_per_node % width
    if hardware.accelerator == "gpu" and idle:
        notes.append(
            f"runtime.teacher_engine.tensor_parallel={width} leaves {idle} GPUs of every node idle in the fill"
        )
    return tuple(notes)


def _hardware_line(hardware: Hardware) -> str:
    if hardware.accelerator == "cpu":
        cpus = "" if hardware.cpus is None else f", {hardware.cpus} CPUs each"
        return f"placement on CPUs: {hardware.nodes} node(s){cpus}"
    return (
        f"placement on GPUs: {hardware.nodes} node(s) x {hardware.gpus_per_node} x {hardware.gpu_memory_gib:g} GiB; "
        "phases follow one another and reuse them"
    )


def _places_text(bundles: Sequence[Bundle]) -> str:
    """`node 0: 0 on GPU 0-3, 2 on GPU 4-7; node 1: ...`."""
    nodes = []
    for node in sorted({bundle.node for bundle in bundles}):
        here = [bundle for bundle in bundles if bundle.node == node]
        nodes.append(f"node {node}: " + ", ".join(f"{bundle.index}{_gpus_text(bundle.gpus)}" for bundle in here))
    return "; ".join(nodes)


def _gpus_text(gpus: tuple[int, ...]) -> str:
    if len(gpus) < 2:
        return "".join(f" on GPU {gpu}" for gpu in gpus)
    return f" on GPU {gpus[0]}-{gpus[-1]}"


def _distinct(fits: Sequence[MemoryFit]) -> list[tuple[MemoryFit, str]]:
    """Fits that differ in more than their label, each with the labels that share it."""
    groups: dict[tuple[MemoryItem, ...], list[MemoryFit]] = {}
    for fit in fits:
        groups.setdefault(fit.items, []).append(fit)
    return [(same[0], "; ".join(fit.label for fit in same)) for same in groups.values()]


def _total_bytes(fit: MemoryFit) -> float:
    return fit.total_bytes


def _mark(*, assumed: bool) -> str:
    return " (assumed)" if assumed else ""


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
