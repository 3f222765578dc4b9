"""Whether the parts of an experiment that distils a task fit its machines: engines, workers, and what lies beside them.

The phases follow one another: a teacher may be tuned, engines of it answer, students are trained one after the other.
What the engines of a teacher that answers in words take is that of every language model (`planned_engine`). Nothing is
started for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from configs import ConfigError
from configs.architecture import TextModel, read_text_model
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig
from configs.task_starts import TransformerStart
from configs.teachers import FIRST
from orchestration.inputs.models import is_at_hand, locate_model
from orchestration.plan.fitting import require_engine_room, require_fit, require_worker_room
from orchestration.plan.hardware import GIB, Hardware
from orchestration.plan.host_memory import DRIVER_GIB, FILL, HostPhase
from orchestration.plan.memory import MemoryFit, MemoryItem
from orchestration.plan.placement import Part, Placement
from orchestration.plan.task_memory import (
    TaskSizes,
    live_teacher_memory,
    plain_memory,
    signal_engine_memory,
    start_sizes,
    task_training_memory,
    transformer_sizes,
    word_tables_memory,
)

_TEACHER_KEY = "runtime.teacher_engine"


def plan_task_placements(
    config: TaskDistillConfig,
    *,
    teachers: Mapping[str, TextModel],
    models: Mapping[str, TextModel],
    hardware: Hardware,
) -> dict[str, Placement]:
    """The placement of each teacher by its name, the first one's with the students, which are cut from it.

    Teachers are tuned and asked one after the other. It raises as `plan_task_placement`.
    """
    found = {}
    for name, teacher in teachers.items():
        own = config.of_teacher(name)
        if name != FIRST:
            own = own.model_copy(update={"students": {}})
        found[name] = plan_task_placement(own, teacher=teacher, models=models, hardware=hardware)
    return found


def plan_task_placement(
    config: TaskDistillConfig, *, teacher: TextModel, models: Mapping[str, TextModel], hardware: Hardware
) -> Placement:
    """Check that the trainings fit, and the engines of a teacher with a head that is not behind a door.

    `models` are those of students that start from a model of their own and are at hand, by the student's name.

    Raises:
        ConfigError: too few GPUs or CPUs, or too little memory of a GPU; names keys and cure.
    """
    runtime, on_gpu, served = config.runtime, hardware.accelerator == "gpu", config.teacher.serve is not None
    if not served:
        require_engine_room(runtime.teacher_engine, key=_TEACHER_KEY, hardware=hardware)
    require_worker_room(runtime.training, hardware=hardware)
    engine = None
    if config.teacher.answers == "head" and not served:
        stages = runtime.teacher_engine.pipeline_parallel
        if stages > 1:
            raise ConfigError(
                f"{_TEACHER_KEY}.pipeline_parallel={stages}, but a teacher with a head answers on one GPU: set it to 1"
            )
        engine = signal_engine_memory(
            teacher,
            settings=runtime.teacher_engine,
            dtype=config.teacher.dtype,
            longest=config.teacher.max_tokens,
            accelerator=hardware.accelerator,
        )
    sizes = {
        name: start_sizes(each.start, teacher=teacher, own=models.get(name)) for name, each in config.students.items()
    }
    trained = dict(_trainings(config, teacher=teacher, sizes=sizes, hardware=hardware))
    fits = (*(() if engine is None else (engine,)), *trained.values())
    if on_gpu:
        for fit in fits:
            require_fit(fit, hardware)
    engines, workers = runtime.teacher_engine, runtime.training
    parts = (
        *(() if served else (Part("teacher engine", engines.count, 1 if on_gpu else engines.cpus),)),
        Part("training worker", workers.workers, 1 if on_gpu else workers.cpus_per_worker),
    )
    notes = tuple(
        f"students.{name}: its model is not at hand, so its memory was not checked"
        for name, known in sizes.items()
        if known is None
    )
    if on_gpu:
        return Placement(hardware, parts, fits, notes)
    phases = _phases(config, teacher=teacher, engine=engine, trained=trained, hardware=hardware)
    return Placement(hardware, parts, fits, notes, tuple(phases))


def own_models(config: TaskDistillConfig) -> dict[str, TextModel]:
    """The sizes of the models that students start from and that are at hand, by the student's name.

    Raises:
        ModelError: a config.json cannot be read.
    """
    sources = {
        name: student.start.model
        for name, student in config.students.items()
        if isinstance(student.start, TransformerStart) and student.start.model is not None
    }
    return {
        name: read_text_model(locate_model(source, models_root=config.runtime.models_root))
        for name, source in sources.items()
        if is_at_hand(source)
    }


def _trainings(
    config: TaskDistillConfig, *, teacher: TextModel, sizes: Mapping[str, TaskSizes | None], hardware: Hardware
) -> Iterator[tuple[str, MemoryFit]]:
    """What a worker holds in the stage that needs most, of the teacher's tuning and of each student."""
    plain = 0 if config.data.plain is None else config.data.plain.max_tokens

    def largest(
        name: str,
        of: TaskSizes,
        stages: tuple[TaskStageConfig, ...],
        longest: int,
        general: tuple[TaskStageConfig, ...] = (),
    ) -> MemoryFit:
        fits = (
            task_training_memory(
                of,
                label=f"training worker, {name}",
                settings=config.runtime.training,
                stage=stage,
                longest=tokens,
                accelerator=hardware.accelerator,
                beside=(
                    *live_teacher_memory(
                        teacher,
                        stage,
                        settings=config.runtime.training,
                        dtype=config.teacher.dtype,
                        longest=tokens,
                        general=of_plain,
                    ),
                    *word_tables_memory(stage),
                ),
            )
            for staged, tokens, of_plain in ((stages, longest, False), (general, plain, True))
            for stage in staged
        )
        return max(fits, key=lambda fit: fit.total_bytes)

    most = config.teacher.max_tokens
    if config.teacher.prepare:
        yield (
            "teacher",
            largest("teacher", transformer_sizes(teacher), config.teacher.prepare, most, config.teacher.general),
        )
    for name, student in config.students.items():
        known = sizes[name]
        if known is not None:
            yield name, largest(name, known, student.stages, student.max_tokens or most, student.general)


def _phases(
    config: TaskDistillConfig,
    *,
    teacher: TextModel,
    engine: MemoryFit | None,
    trained: Mapping[str, MemoryFit],
    hardware: Hardware,
) -> Iterator[HostPhase]:
    """What lies in the memory of one machine at a time, where it computes on CPUs; parts are spread over machines."""

    def placed(fit: MemoryFit, count: int) -> MemoryItem:
        here = -(-count // hardware.nodes)
        return MemoryItem(fit.label, here * fit.total_bytes, f"{here} x {fit.total_bytes / GIB:.2f} GiB")

    driver = MemoryItem("driver", DRIVER_GIB * GIB, f"{DRIVER_GIB:g} GiB, measured")
    if engine is not None:
        plain = plain_memory(teacher, label="plain forward pass")
        yield HostPhase(FILL, (placed(engine, config.runtime.teacher_engine.count), plain, driver), engine.cure)
    for name, fit in trained.items():
        yield HostPhase(f"training of {name}", (placed(fit, config.runtime.training.workers), driver), fit.cure)
