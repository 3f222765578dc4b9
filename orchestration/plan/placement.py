"""Which parts an experiment has, and whether they fit its GPUs or CPUs. Pure arithmetic, nothing is started.

An experiment has three phases that follow one another and may use the same GPUs: teacher engines fill the cache,
a group of workers trains, student engines write the answers that are compared. A student that learns from what it
writes itself needs all three at once, on GPUs of their own or in turns on the same (`colocation`).

Engines are spread over the machines and workers packed onto few of them; which machine and which GPUs that are is
left to Ray (docs/decisions/0018-placement.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs import ConfigError
from configs.schema import DistillConfig, EngineSettings, RuntimeConfig
from configs.stages import StageConfig
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.colocation import PartKind, require_room_together
from orchestration.plan.fitting import (
    require_engine_fits,
    require_engine_room,
    require_fit,
    require_worker_room,
    split_in_words,
)
from orchestration.plan.hardware import Hardware
from orchestration.plan.host_memory import FILL, HostPhase, engine_on_host, host_phases, worker_on_host
from orchestration.plan.live_teacher import live_memory, longest_sequence, require_matching, teacher_of
from orchestration.plan.memory import (
    DTYPE_BYTES,
    MemoryFit,
    engine_memory,
    shared_memory,
    training_memory,
)

_TEACHER_KEY = "runtime.teacher_engine"
_STUDENT_KEY = "runtime.student_engine"


@dataclass(frozen=True, slots=True)
class Part:
    """All engines or workers of one kind: how many, and the GPUs (CPUs where there are none) that each of them takes.

    The GPUs of one engine are those of one node: the ranks of a tensor-parallel group exchange activations in every
    layer, and an engine starts the processes of all its ranks itself.
    """

    kind: PartKind
    count: int
    each: float

    @property
    def packed(self) -> bool:
        """Whether the parts go onto as few machines as there is room for; else they are spread over all of them."""
        return self.kind == "training worker"

    def dealt(self, hardware: Hardware) -> tuple[int, ...]:
        """How many of the parts each machine gets where nothing else is there, from the fullest on.

        `orchestration.cluster.places` has Ray do it. Empty where there is one machine, or it is not known what one has.
        """
        there = hardware.gpus_per_node if hardware.accelerator == "gpu" else hardware.cpus
        if hardware.nodes == 1 or there is None:
            return ()
        if self.packed:
            room = max(int(there / self.each + 1e-6), 1)
            return tuple(min(room, self.count - at) for at in range(0, self.count, room))
        least, more = divmod(self.count, hardware.nodes)
        return tuple(least + (at < more) for at in range(min(hardware.nodes, self.count)))


@dataclass(frozen=True, slots=True)
class Placement:
    """What runs on which hardware, what every GPU or process holds, what lies on one machine at a time, and notes."""

    hardware: Hardware
    parts: tuple[Part, ...]
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
    """Check that all parts fit.

    `students` maps every student to its shape, or None when it is not known before a download.

    Raises:
        ConfigError: too few GPUs or CPUs, heads that cannot be split, or too little memory; names keys and cure.
    """
    runtime, served = config.runtime, config.teacher.elsewhere is not None
    _check_layers(config, teacher)
    require_matching(config, teacher=teacher, students=students)
    dtype = config.teacher.dtype
    if not served:
        require_engine_fits(
            runtime.teacher_engine, key=_TEACHER_KEY, who="the teacher", shape=teacher.shape, dtype=dtype
        )
        require_engine_room(runtime.teacher_engine, key=_TEACHER_KEY, hardware=hardware)
    for name, student in students.items():
        if student is not None:
            who, served_in = f"students.{name}", _served_in(config.students[name].stages)
            require_engine_fits(runtime.student_engine, key=_STUDENT_KEY, who=who, shape=student.shape, dtype=served_in)
    require_worker_room(runtime.training, hardware=hardware)
    require_engine_room(runtime.student_engine, key=_STUDENT_KEY, hardware=hardware)
    require_room_together(config, hardware)
    on_gpu = hardware.accelerator == "gpu"
    memory = _memory(config, teacher=teacher, students=students, hardware=hardware)
    fits = memory.listed(config, shared=on_gpu and runtime.colocate)
    if on_gpu:
        for fit in fits:
            require_fit(fit, hardware)
    phases = host_phases(
        config, teacher=teacher.shape, engines=memory.engines, training=memory.training, hardware=hardware
    )
    parts = _parts(runtime, hardware)[1 if served else 0 :]
    return Placement(hardware, parts, fits, _notes(config, students, hardware), phases)


def place_further_teacher(config: DistillConfig, *, teacher: PlannedShape, hardware: Hardware) -> Placement:
    """Check that the engines of a teacher beside the first fit; `config` is the experiment with that one alone.

    They take turns with those of the first, in the same places, and nothing else of it runs beside a student. One that
    answers behind a door takes nothing.

    Raises:
        ConfigError: heads that cannot be split, or too little memory; names keys and cure.
    """
    if config.teacher.elsewhere is not None:
        return Placement(hardware, (), (), ())
    settings = config.runtime.teacher_engine
    who = f"the teacher {teacher.label}"
    require_engine_fits(settings, key=_TEACHER_KEY, who=who, shape=teacher.shape, dtype=config.teacher.dtype)
    memory = _memory(config, teacher=teacher, students={}, hardware=hardware)
    if hardware.accelerator == "gpu":
        require_fit(memory.engines[""], hardware)
    phases = host_phases(config, teacher=teacher.shape, engines=memory.engines, training={}, hardware=hardware)
    parts = _parts(config.runtime, hardware)[:1]
    return Placement(
        hardware, parts, (memory.engines[""],), (), tuple(phase for phase in phases if phase.label == FILL)
    )


@dataclass(frozen=True, slots=True)
class _Memory:
    """The memory of every engine (the teacher's under "", unless it is behind a door) and of a worker in every stage.

    Of each known student.
    """

    engines: Mapping[str, MemoryFit]
    training: Mapping[str, list[MemoryFit]]

    def listed(self, config: DistillConfig, *, shared: bool) -> tuple[MemoryFit, ...]:
        fits = [self.engines[""]] if "" in self.engines else []
        for name, training in self.training.items():
            fits += [max(training, key=_total_bytes), self.engines[name]]
            stages = config.students[name].stages
            beside = [fit for fit, stage in zip(training, stages, strict=True) if shared and stage.rollout is not None]
            together = [
                shared_memory(
                    fit,
                    teacher=self.engines.get(""),
                    student=self.engines[name],
                    label=f"shared GPU, {name}",
                    runtime=config.runtime,
                )
                for fit in beside
            ]
            fits += [max(together, key=_total_bytes)] if together else []
        return tuple(fits)


def _memory(
    config: DistillConfig,
    *,
    teacher: PlannedShape,
    students: Mapping[str, PlannedShape | None],
    hardware: Hardware,
) -> _Memory:
    runtime, teaching, on_cpu = config.runtime, config.teacher, hardware.accelerator == "cpu"

    def engine(shape: PlannedShape, label: str, key: str, *, dtype: str, quantization: str | None) -> MemoryFit:
        settings: EngineSettings = getattr(runtime, key.rpartition(".")[2])
        fit = engine_memory(shape, label=label, key=key, settings=settings, dtype=dtype, quantization=quantization)
        return engine_on_host(fit, key=key, settings=settings) if on_cpu else fit

    def worker(shape: PlannedShape, name: str, stage: StageConfig) -> MemoryFit:
        assistant = config.students[name].teacher
        above = teacher_of(config, name, teacher=teacher, students=students)
        beside = live_memory(
            above,
            student=shape.shape,
            stage=stage,
            settings=runtime.training,
            dtype=teaching.dtype if assistant is None else config.students[assistant].stages[-1].dtype,
            longest=longest_sequence(config, stage),
        )
        label = f"training worker, {name}"
        fit = training_memory(shape, label=label, settings=runtime.training, stage=stage, beside=beside)
        return worker_on_host(fit, settings=runtime.training) if on_cpu else fit

    engines, training = dict[str, MemoryFit](), dict[str, list[MemoryFit]]()
    if teaching.elsewhere is None:
        engines[""] = engine(
            teacher, "teacher engine", _TEACHER_KEY, dtype=teaching.dtype, quantization=teaching.quantization
        )
    for name, shape in students.items():
        if shape is not None:
            stages = config.students[name].stages
            training[name] = [worker(shape, name, stage) for stage in stages]
            engines[name] = engine(
                shape, f"student engine, {name}", _STUDENT_KEY, dtype=_served_in(stages), quantization=None
            )
    return _Memory(engines, training)


def _served_in(stages: Sequence[StageConfig]) -> str:
    """The widest dtype that an engine of a student runs in: that of each stage, for its start, rollouts and result."""
    return max((stage.dtype for stage in stages), key=lambda dtype: DTYPE_BYTES[dtype])


def _parts(runtime: RuntimeConfig, hardware: Hardware) -> tuple[Part, ...]:
    teacher, training, student = runtime.teacher_engine, runtime.training, runtime.student_engine
    gpu = hardware.accelerator == "gpu"
    return (
        Part("teacher engine", teacher.count, teacher.ranks if gpu else teacher.cpus),
        Part("training worker", training.workers, 1 if gpu else training.cpus_per_worker),
        Part("student engine", student.count, student.ranks if gpu else student.cpus),
    )


def _check_layers(config: DistillConfig, teacher: PlannedShape) -> None:
    layers = teacher.shape.layers
    for name, student in config.students.items():
        kept = student.init.keep_layers
        key = f"students.{name}.init.keep_layers"
        if isinstance(kept, int) and kept > layers:
            raise ConfigError(f"{key}={kept} but the teacher has {layers} layers: keep at most {layers}")
        if isinstance(kept, tuple) and kept[-1] >= layers:
            raise ConfigError(f"{key} names layer {kept[-1]} but the teacher's last layer is {layers - 1}: lower it")


def _notes(config: DistillConfig, students: Mapping[str, PlannedShape | None], hardware: Hardware) -> tuple[str, ...]:
    notes = [
        f"students.{name}: its model is not at hand and has no shape block, so its memory was not checked"
        for name, shape in students.items()
        if shape is None
    ]
    engine, served = config.runtime.teacher_engine, config.teacher.elsewhere
    width = engine.ranks
    idle = hardware.gpus_per_node % width
    if served is not None:
        notes.append(f"the teacher answers behind {served.host}: no engine of it starts here, and it takes no GPU")
    if hardware.accelerator == "gpu" and idle and served is None:
        notes.append(
            f"runtime.teacher_engine.{split_in_words(engine)} leaves {idle} GPUs of every node idle in the fill"
        )
    if hardware.accelerator == "gpu" and _writes_rollouts(config):
        where = "take turns on the GPUs of the workers" if config.runtime.colocate else "each have GPUs of their own"
        who = "workers, teacher engines and student engines" if served is None else "workers and student engines"
        notes.append(f"in on-policy stages {who} {where}")
    return tuple(notes)


def _writes_rollouts(config: DistillConfig) -> bool:
    stages = [stage for student in config.students.values() for stage in student.stages]
    return any(stage.rollout is not None and stage.rollout.replay_from is None for stage in stages)


def _total_bytes(fit: MemoryFit) -> float:
    return fit.total_bytes
