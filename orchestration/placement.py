"""Which part of an experiment runs on which GPU, and whether it fits there. Pure arithmetic, nothing is started.

An experiment has three phases that follow one another and may use the same GPUs: teacher engines fill the cache,
a gang of workers trains, student engines write the answers that are compared. A tensor-parallel group never crosses a
node (its ranks exchange activations in every layer); engines are dealt over the nodes in turn; workers fill node after
node, so neighbouring ranks share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from configs import ConfigError
from configs.schema import DistillConfig, EngineSettings, ModelShape, TrainingSettings
from orchestration.fill_time import FillTime
from orchestration.memory_fit import (
    GIB,
    RUNTIME_GIB,
    USABLE,
    MemoryFit,
    engine_memory,
    kv_tokens,
    training_memory,
)
from orchestration.shapes import PlannedShape

Role = Literal["teacher engine", "training worker", "student engine"]
_ENGINES: tuple[tuple[Role, str], ...] = (("teacher engine", "teacher_engine"), ("student engine", "student_engine"))


@dataclass(frozen=True, slots=True)
class Hardware:
    """What there is, or what is assumed. On CPUs the number of GPUs is not looked at; `cpus` None is unknown."""

    accelerator: Literal["cpu", "gpu"]
    nodes: int = 1
    gpus_per_node: int = 0
    gpu_memory_gib: float = 80.0
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """One process (or tensor-parallel group): its place. `gpus` are indices on the node; none on CPUs."""

    role: Role
    index: int
    node: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything runs, what every GPU holds, and what could not be checked."""

    hardware: Hardware
    bundles: tuple[Bundle, ...]
    fits: tuple[MemoryFit, ...]
    notes: tuple[str, ...]


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
    known = {name: shape for name, shape in students.items() if shape is not None}
    _check_layers(config, teacher)
    _check_engine(runtime.teacher_engine, "runtime.teacher_engine", {"teacher": teacher}, config.teacher.dtype, hardware)
    for name, shape in known.items():
        dtype = config.students[name].stages[-1].dtype
        _check_engine(runtime.student_engine, "runtime.student_engine", {f"students.{name}": shape}, dtype, hardware)
    bundles = [
        *_place_engines("teacher engine", runtime.teacher_engine, "runtime.teacher_engine", hardware),
        *_place_workers(runtime.training, hardware),
        *_place_engines("student engine", runtime.student_engine, "runtime.student_engine", hardware),
    ]
    fits = memory_fit(config, teacher=teacher, students=students)
    if hardware.accelerator == "gpu":
        for fit in fits:
            _check_fit(fit, hardware)
    return Placement(hardware, tuple(bundles), fits, _notes(config, students, hardware))


def memory_fit(
    config: DistillConfig, *, teacher: PlannedShape, students: Mapping[str, PlannedShape | None]
) -> tuple[MemoryFit, ...]:
    """The memory of one GPU for the teacher's engine, and for every known student's costliest stage and engine."""
    runtime = config.runtime
    fits = [
        engine_memory(
            teacher,
            label="teacher engine",
            key="runtime.teacher_engine",
            settings=runtime.teacher_engine,
            dtype=config.teacher.dtype,
            quantization=config.teacher.quantization,
        )
    ]
    for name, shape in students.items():
        if shape is None:
            continue
        stages = config.students[name].stages
        training = [
            training_memory(shape, label=f"training worker, {name}", settings=runtime.training, stage=stage)
            for stage in stages
        ]
        fits.append(max(training, key=lambda fit: fit.total_bytes))
        fits.append(
            engine_memory(
                shape,
                label=f"student engine, {name}",
                key="runtime.student_engine",
                settings=runtime.student_engine,
                dtype=stages[-1].dtype,
            )
        )
    return tuple(fits)


def render_placement(placement: Placement, *, fill: FillTime | None = None) -> list[str]:
    """The placement as lines for people; numbers that rest on an assumed shape are marked."""
    hardware = placement.hardware
    lines = [_hardware_line(hardware)]
    for role in dict.fromkeys(bundle.role for bundle in placement.bundles):
        same = [bundle for bundle in placement.bundles if bundle.role == role]
        lines.append(f"  {role}s: " + "; ".join(_bundle_text(bundle) for bundle in same))
    for fit in placement.fits:
        room = f" of {hardware.gpu_memory_gib * USABLE:.1f} usable" if hardware.accelerator == "gpu" else ""
        unit = "GPU" if hardware.accelerator == "gpu" else "process"
        lines.append(f"  {fit.label}: {fit.total_bytes / GIB:.2f} GiB{room} a {unit}{_mark(assumed=fit.assumed)}")
        for item in fit.items:
            lines.append(f"    {item.name:<11} {item.size_bytes / GIB:8.2f} GiB  {item.arithmetic}")
    if fill is not None:
        spent = f", {fill.gpu_hours:.1f} GPU hours" if fill.gpus else ""
        lines.append(
            f"  fill: about {_duration(fill.seconds)}{spent} "
            f"(reads {fill.read_rate:,.0f}, writes {fill.write_rate:,.0f} tokens/s){_mark(assumed=fill.assumed)}"
        )
    return lines + [f"  note: {note}" for note in placement.notes]
