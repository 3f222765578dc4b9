"""`distill plan`: what an experiment would ask, need and cost. Nothing is started, downloaded or left behind.

Where the teacher's files are at hand the cache is asked; where they are not, shapes come from the YAML, every row
counts as a miss, and each number that rests on that is marked as assumed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cache import TeacherCache
from configs import ConfigError, DistillConfig
from configs.places import FINGERPRINTS, is_url
from configs.schema import EngineSettings, TrainingSettings
from configs.stages import InitConfig
from orchestration.inputs.models import STAGING, is_at_hand
from orchestration.inputs.preflight import (
    choose_accelerator,
    cpu_count,
    require_fitting_lengths,
    resolve_paths,
    visible_gpus,
)
from orchestration.inputs.prompts import SPLITS, Prompt, load_prompts
from orchestration.inputs.shapes import PlannedShape, shape_at_hand
from orchestration.outputs.console import Console
from orchestration.pipeline.run import Teacher, open_refusals, open_teacher
from orchestration.plan.host_memory import check_host, read_host_memory
from orchestration.plan.placement import Hardware, Placement, plan_placement, render_placement
from orchestration.plan.requests import FillPlan, Holdings, NothingHeld, plan_fill, sequence_sets
from orchestration.plan.tables import fill_time, show_plan, show_rollouts
from student_train.starts.sizes import planned_shape


def print_plan(config: DistillConfig, *, config_dir: Path, assume_gpus: int | None, stream: TextIO) -> None:
    """Print the plan.

    Raises:
        ConfigError: it cannot work: too little memory, a missing file, a shape that is neither at hand nor described.
    """
    config = resolve_paths(config, config_dir=config_dir)
    with _borrowed_models(config.runtime.models_root) as models_root:
        runtime = config.runtime.model_copy(update={"models_root": models_root})
        _print_plan(config.model_copy(update={"runtime": runtime}), assume_gpus=assume_gpus, stream=stream)


def _print_plan(config: DistillConfig, *, assume_gpus: int | None, stream: TextIO) -> None:
    console = Console(stream)
    hardware = hardware_of(config, assume_gpus=assume_gpus)
    if assume_gpus is not None:
        config = _cut_to(hardware, config, console=console)
    if is_at_hand(config.teacher.model):
        teacher = open_teacher(config)
        shape = PlannedShape(teacher.files.label, teacher.files.shape, assumed=False)
        prompts = load_prompts(
            config.data,
            tokenizer=teacher.files.tokenizer,
            stop_ids=teacher.files.stop_ids,
            max_new_tokens=config.generation.max_new_tokens,
        )
        sets = sequence_sets(config, prompts.splits, stop_ids=teacher.files.stop_ids)
        cache, refused = _held(config, teacher), open_refusals(config, teacher)
        plan, assumed = plan_fill(sets, cache=cache, refused=refused), False
    else:
        shape = _assumed_shape(config)
        require_fitting_lengths(config, teacher=shape.shape)
        plan, assumed = _assumed_plan(config), True
        console.warn(f"{config.teacher.model.label} is not on this machine: shapes from the YAML, all rows misses")
        for split in SPLITS:
            if getattr(config.data, split).assumed_rows is None:
                console.warn(
                    f"data.{split} is left out, because nobody knows its rows before it is read: "
                    f"set data.{split}.limit, or slice the split"
                )
    time = fill_time(plan, config=config, teacher=shape, accelerator=hardware.accelerator)
    if plan.sets:
        show_plan(plan, time=time, console=console, assumed_rows=assumed)
    show_rollouts(config, console=console)
    for name in sorted({student.teacher for student in config.students.values() if student.teacher is not None}):
        console.say(f"{name} teaches too: what it is asked is planned when it is trained, and not counted here.")
    placement = require_placement(config, teacher=shape, hardware=hardware)
    for line in render_placement(placement, fill=time):
        console.say(line)
    for warning in check_host(placement.phases, memory=hardware.memory, asks_teacher=plan.asks_teacher):
        console.warn(warning)


@contextmanager
def _borrowed_models(models_root: Path) -> Iterator[Path]:
    """A temporary models root with all that the real one holds: what a plan has to make of a model goes with it.

    Raises:
        ConfigError: there is no room for temporary files.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="stillroom-plan-") as name:
            for entry in models_root.iterdir() if models_root.is_dir() else ():
                if entry.is_dir() and not entry.name.endswith(STAGING):
                    (Path(name) / entry.name).symlink_to(entry.absolute())
            memo = models_root / FINGERPRINTS
            if memo.is_file():
                shutil.copyfile(memo, Path(name) / memo.name)
            yield Path(name)
    except FileNotFoundError as error:
        raise ConfigError(f"a plan needs a place for temporary files ({error.strerror}): set TMPDIR to one") from error


def _held(config: DistillConfig, teacher: Teacher) -> Holdings:
    """The teacher's cache if there is one; none is made."""
    root = config.runtime.cache_root
    if not is_url(root) and not (Path(root) / teacher.identity.digest()).exists():
        return NothingHeld()
    return TeacherCache.open(root, teacher.identity, create=False)


def require_placement(config: DistillConfig, *, teacher: PlannedShape, hardware: Hardware) -> Placement:
    """Where everything runs.

    Raises:
        ConfigError: it does not fit; names keys and cure.
    """
    students = {name: student_shape(student.init, teacher) for name, student in config.students.items()}
    return plan_placement(config, teacher=teacher, students=students, hardware=hardware)


def student_shape(init: InitConfig, teacher: PlannedShape) -> PlannedShape | None:
    """The shape a student will have; None when its own model is neither at hand nor described.

    Raises:
        ConfigError: it is derived from more than the teacher has.
    """
    if init.model is not None:
        return shape_at_hand(init.model)
    shape = planned_shape(init, teacher=teacher.shape)
    narrower = f", {shape.hidden} wide, {shape.heads} heads, {shape.mlp} channels" if init.narrows else ""
    return PlannedShape(f"{teacher.label}, {shape.layers} layers{narrower}", shape, teacher.assumed)


def hardware_of(config: DistillConfig, *, assume_gpus: int | None = None) -> Hardware:
    """What the experiment will run on: this machine, a cluster that is attached to, or an assumed number of GPUs.

    Raises:
        ConfigError: GPUs are demanded and there are none.
    """
    runtime = config.runtime
    if assume_gpus is not None:
        per_node = min(assume_gpus, runtime.gpus_per_node)
        if assume_gpus < 1:
            raise ConfigError(f"--assume-gpus {assume_gpus} leaves nothing to plan for: name at least 1")
        if assume_gpus % per_node:
            raise ConfigError(
                f"--assume-gpus {assume_gpus} is no multiple of runtime.gpus_per_node={runtime.gpus_per_node}: "
                "correct one"
            )
        return Hardware("gpu", assume_gpus // per_node, per_node, runtime.gpu_memory_gib)
    if runtime.ray_address is not None:
        return _of_cluster(config, runtime.ray_address)
    gpus = visible_gpus()
    if choose_accelerator(config, gpus=gpus) == "cpu":
        return Hardware("cpu", cpus=cpu_count(), memory=read_host_memory())
    return Hardware(
        "gpu", runtime.nodes, gpus or runtime.gpus_per_node, runtime.gpu_memory_gib, memory=read_host_memory()
    )


def _of_cluster(config: DistillConfig, address: str) -> Hardware:
    """What a cluster has. The driver may be any machine of it, or none, so what it has itself says nothing.

    Where the configuration names the accelerator it is also believed about the machines: a plan can then be made
    while there is no cluster yet.
    """
    runtime = config.runtime
    if runtime.accelerator == "gpu":
        return Hardware("gpu", runtime.nodes, runtime.gpus_per_node, runtime.gpu_memory_gib)
    if runtime.accelerator == "cpu":
        return Hardware("cpu", runtime.nodes)
    # Ray only for who attaches to a cluster.
    from orchestration.cluster.nodes import cluster_nodes

    nodes = cluster_nodes(address)
    chosen = [node for node in nodes if node.gpus] or list(nodes)
    memories = [node.memory for node in chosen if node.memory is not None]
    memory = min(memories, key=lambda each: each.total_gib, default=None)
    if not chosen[0].gpus:
        return Hardware("cpu", len(chosen), cpus=min(node.cpus for node in chosen), memory=memory)
    per_node = min(node.gpus for node in chosen)
    return Hardware("gpu", len(chosen), per_node, runtime.gpu_memory_gib, memory=memory)


def _cut_to(hardware: Hardware, config: DistillConfig, *, console: Console) -> DistillConfig:
    """The configuration with as many engines and workers as the assumed GPUs hold; numbers do not depend on them."""
    runtime = config.runtime
    changed: dict[str, EngineSettings | TrainingSettings] = {}
    for role in ("teacher_engine", "student_engine"):
        engine: EngineSettings = getattr(runtime, role)
        whole = hardware.nodes * (hardware.gpus_per_node // engine.tensor_parallel)
        # A group that does not fit at all is left as it is, and refused with its cure.
        if 0 < whole < engine.count:
            console.warn(f"runtime.{role}.count={engine.count}: planned with the {whole} that these GPUs hold")
            changed[role] = engine.model_copy(update={"count": whole})
    workers = hardware.nodes * hardware.gpus_per_node
    if workers < runtime.training.workers:
        console.warn(f"runtime.training.workers={runtime.training.workers}: planned with {workers}, one a GPU")
        changed["training"] = runtime.training.model_copy(update={"workers": workers})
    return config.model_copy(update={"runtime": runtime.model_copy(update=changed)})


def _assumed_shape(config: DistillConfig) -> PlannedShape:
    shape = shape_at_hand(config.teacher.model)
    if shape is None:
        raise ConfigError(
            f"teacher.model={config.teacher.model.label} is not on this machine and has no shape to plan with: "
            "download it, or write its sizes under teacher.model.shape"
        )
    return shape


def _assumed_plan(config: DistillConfig) -> FillPlan:
    """Every row a miss of the longest prompt and answer; splits of unknown length are left out."""
    data, answer = config.data, config.generation.max_new_tokens
    prompt = Prompt(0, "", prompt_ids=(0,) * data.max_prompt_tokens, gold_ids=(0,) * answer)
    rows = {split: (prompt,) * (getattr(data, split).assumed_rows or 0) for split in SPLITS}
    sets = sequence_sets(config, rows, stop_ids=())
    return plan_fill([part for part in sets if part.requests], cache=NothingHeld())
