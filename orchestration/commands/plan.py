"""`distill plan`: what an experiment would ask, need and cost. Nothing is started, downloaded or left behind.

Where the teacher's files are at hand the cache is asked; where they are not, shapes come from the YAML, every row
counts as a miss, and each number that rests on that is marked as assumed. A teacher behind a door is asked who it is;
where nobody answers there, every row counts as a miss unless its weights are here to say who it is. A server of
somebody else's is not asked: who the teacher is, the configuration declares.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cache import TeacherCache
from configs import ConfigError, DistillConfig, DoorError
from configs.experiments import AnyExperiment
from configs.places import ARCHITECTURES, FINGERPRINTS, is_url
from configs.schema import EngineSettings, TrainingSettings
from configs.teachers import FIRST, key_of_teacher
from evaluation.cost import NOTHING_SAVED, Saved
from orchestration.audits.planned import planned_audits, require_audits
from orchestration.fill.teacher_plans import plans_of
from orchestration.inputs.asked_prompts import read_prompts, takes_long
from orchestration.inputs.doors import TeacherDoor, knock, weights_wanted
from orchestration.inputs.licences import licences_in_words, with_licences
from orchestration.inputs.made_once import STAGING
from orchestration.inputs.model_guard import guard_in_words, planned_guard
from orchestration.inputs.models import is_at_hand, materialise
from orchestration.inputs.other_tokens import has_other_tokens, tokens_in_words, tokens_of
from orchestration.inputs.planted_rows import planted_data, planted_root
from orchestration.inputs.preflight import require_fitting_lengths
from orchestration.inputs.prompts import Prompt, PromptSet
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.remote_teachers import scores_wanted
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_files import screened_in_words, screened_root
from orchestration.inputs.screened_rows import screened_data
from orchestration.inputs.shapes import PlannedShape, shape_at_hand, student_shapes
from orchestration.inputs.teachers import Teacher, open_teachers
from orchestration.inputs.wide_prompts import Widened
from orchestration.outputs.console import Console
from orchestration.outputs.scratch import scratch_directory
from orchestration.plan.duration import FillTime
from orchestration.plan.hardware import Hardware, hardware_of
from orchestration.plan.host_memory import check_host
from orchestration.plan.placement import place_further_teacher, plan_placement
from orchestration.plan.requests import FillPlan, Holdings, NothingHeld, plan_fill, sequence_sets
from orchestration.plan.savings import saved_by_cache
from orchestration.plan.scores import told_sets
from orchestration.plan.tables import (
    fill_time,
    render_placement,
    show_money,
    show_plain,
    show_plan,
    show_rollouts,
    warn_of_slow_dtype,
)

PATIENCE_S = 5.0
"""How long a plan waits for a door that does not answer at once."""


def print_plan(config: DistillConfig, *, config_dir: Path, assume_gpus: int | None, stream: TextIO) -> None:
    """Print the plan.

    Raises:
        ConfigError: it cannot work: too little memory, a missing file, a shape that is neither at hand nor described.
    """
    config = resolve_paths(config, config_dir=config_dir)
    require_audits(config.audit)
    with borrowed_models(config.runtime.models_root) as models_root:
        runtime = config.runtime.model_copy(update={"models_root": models_root})
        config = with_licences(config.model_copy(update={"runtime": runtime}), fetch=False)
        _print_plan(config, assume_gpus=assume_gpus, stream=stream)


def _print_plan(config: DistillConfig, *, assume_gpus: int | None, stream: TextIO) -> None:
    console = Console(stream)
    hardware = hardware_of(config, ask_cluster=ask_cluster, assume_gpus=assume_gpus)
    if assume_gpus is not None:
        config = _cut_to(hardware, config, console=console)
    for line in licences_in_words(config):
        console.say(f"{line}.")
    if config.combined:
        console.say(f"{config.combined}.")
    missing = [each.model.label for name, each in config.every_teacher.items() if not _at_hand(config, name)]
    doors = _show_doors(config, console=console)
    teachers = {} if missing else open_teachers(config, doors=doors)
    plans = _plans(config, teachers, console=console) if teachers else _assumed_plans(config, missing, console=console)
    shapes = {name: _shape(config, teachers.get(name), name=name) for name in config.every_teacher}
    times = {}
    for name, plan in plans.items():
        alone = config.of_teacher(name)
        if config.teachers:
            console.say(f"{name}, {shapes[name].label}:")
        times[name] = fill_time(plan, config=alone, teacher=shapes[name], accelerator=hardware.accelerator)
        if plan.sets:
            show_plan(plan, time=times[name], console=console, assumed_rows=bool(missing))
            saved = _saved(plan, config=alone, teacher=teachers.get(name))
            show_money(plan, time=times[name], saved=saved, config=alone, console=console)
    show_plain(plans[FIRST], config=config, console=console)
    show_rollouts(config, console=console)
    idle = [name for name, plan in plans.items() if not plan.asks_teacher or config.every_teacher[name].elsewhere]
    warn_of_slow_dtype(config, hardware=hardware, console=console, nothing_to_ask=idle)
    for name in sorted({student.teacher for student in config.students.values() if student.teacher is not None}):
        console.say(f"{name} teaches too: what it is asked is planned when it is trained, and not counted here.")
    _show_placements(config, plans, shapes=shapes, times=times, hardware=hardware, console=console)
    for line in planned_audits(config, teacher=shapes[FIRST], hardware=hardware):
        console.say(line)


def _show_placements(
    config: DistillConfig,
    plans: Mapping[str, FillPlan],
    *,
    shapes: Mapping[str, PlannedShape],
    times: Mapping[str, FillTime | None],
    hardware: Hardware,
    console: Console,
) -> None:
    """What runs where and what it holds: with the first teacher everything, of each further one its engines."""
    students = student_shapes(config.students, teacher=shapes[FIRST])
    placements = {FIRST: plan_placement(config, teacher=shapes[FIRST], students=students, hardware=hardware)}
    for name in config.teachers:
        placements[name] = place_further_teacher(config.of_teacher(name), teacher=shapes[name], hardware=hardware)
    for name, placement in placements.items():
        if config.every_teacher[name].elsewhere is not None and name != FIRST:
            continue
        if name != FIRST:
            console.say(f"Before students learn, for {name}:")
        for line in render_placement(placement, fill=times[name]):
            console.say(line)
        for warning in check_host(placement.phases, memory=hardware.memory, asks_teacher=plans[name].asks_teacher):
            console.warn(warning)


def _at_hand(config: DistillConfig, name: str) -> bool:
    """Whether the files of the teacher of this name are here, as far as an experiment needs them."""
    teacher = config.every_teacher[name]
    weights = teacher.elsewhere is None
    if teacher.serve is not None:
        weights = name == FIRST and weights_wanted(config) is not None
    return is_at_hand(teacher.model, weights=weights)


def _show_doors(config: DistillConfig, *, console: Console) -> dict[str, TeacherDoor]:
    """Say who answers behind the doors of this experiment; those that do, by the names of the teachers.

    A server of somebody else's, which may want money for every question, is not asked.
    """
    found = {}
    for name, teacher in config.every_teacher.items():
        key = key_of_teacher(name)
        if teacher.openai is not None:
            console.say(
                f"{key}: {teacher.label}, at {teacher.openai.host}, is not asked by a plan. A run that lacks rows asks "
                f"it a dozen short questions first, and goes on if it gives {_needs(config, name)}."
            )
        if teacher.serve is None:
            continue
        try:
            door = found[name] = knock(teacher.serve, key=key, patience_s=PATIENCE_S)
        except (ConfigError, DoorError) as error:
            console.warn(f"{error}; planned with what is known here, and rows that are cached may count as misses")
            continue
        console.say(f"{key}: {door.said}.")
    return found


def _needs(config: DistillConfig, name: str) -> str:
    """What an experiment needs of a server, in words."""
    k, scored = config.every_teacher[name].top_k, scores_wanted(config, name)
    beliefs = f"{k} log-probabilities a token" if k else "texts"
    return beliefs if scored is None else f"{beliefs}, also of given texts ({scored})"


def _plans(config: DistillConfig, teachers: Mapping[str, Teacher], *, console: Console) -> dict[str, FillPlan]:
    """What each teacher is asked, by what the cache lacks."""
    teacher = teachers[FIRST]
    # A plan makes nothing: what a run has not screened yet is screened for the plan alone.
    with scratch_directory("plan") as scratch:
        guard = planned_guard(config)
        screening = Screening(scratch, made=screened_root(config), say=console.say, guard=guard)
        screened = screened_data(config, screening)
        planted = planted_data(screened.config, root=scratch, made=planted_root(config))
        read = _read(planted.config, teacher, console=console)
        planted.require_readable(read.prompts, reader=teacher.files)
        _show_other_tokens(planted.config, teacher, read.prompts, console=console)
    guarded = guard_in_words(config, guard)
    for line in (*guarded, *screened_in_words(screened.splits), *planted.said, *read.said):
        console.say(line)
    held = {name: _held(config, each) for name, each in teachers.items()}
    return plans_of(teachers, read.prompts, config=config, caches=held)


def _read(config: DistillConfig, teacher: Teacher, *, console: Console) -> Widened:
    """The prompts; where there are many, with a line that says how far it is."""
    if not takes_long(config.data):
        return read_prompts(config, teacher=teacher.files)
    with console.stage("prompts") as stage:

        def reading(split: str, rows: int) -> None:
            stage.update(rows, note=f"{rows:,} rows of {split}")

        read = read_prompts(config, teacher=teacher.files, progress=reading)
        stage.summary = ", ".join(f"{len(rows):,} {name}" for name, rows in read.prompts.splits.items())
    return read


def _assumed_plans(config: DistillConfig, missing: Sequence[str], *, console: Console) -> dict[str, FillPlan]:
    """What each teacher is asked at most, where the files of one are not at hand."""
    console.warn(f"{', '.join(missing)} is not on this machine: shapes from the YAML, all rows misses")
    for split, source in config.data.splits.items():
        if source.assumed_rows is None:
            console.warn(
                f"data.{split} is left out, because nobody knows its rows before it is read: "
                f"set data.{split}.limit, or slice the split"
            )
    if config.teacher_context is not None:
        console.warn("teacher_context is left out, because nobody knows its tokens before the tokenizer is there")
    if config.data.plain is not None:
        console.warn("data.plain is left out, because nobody knows its windows before its texts are read")
    if config.route is not None:
        console.warn("every teacher is planned with all rows, because nobody knows whose they are before they are read")
    first = _assumed_plan(config)
    if config.route is not None:
        return dict.fromkeys(config.every_teacher, first)
    told = told_sets([part.sequences for part in first.sets], cache=NothingHeld())
    scored = {
        name: plan_fill([part.scored_by(each, planned=True) for part in told], cache=NothingHeld())
        for name, each in config.teachers.items()
    }
    return {FIRST: first, **scored}


def _shape(config: DistillConfig, teacher: Teacher | None, *, name: str) -> PlannedShape:
    """The sizes of the teacher of this name, from its files or from the YAML."""
    if teacher is not None:
        return PlannedShape(teacher.files.label, teacher.files.shape, assumed=False)
    alone, key = config.of_teacher(name), key_of_teacher(name)
    shape = _assumed_shape(alone, key=key)
    require_fitting_lengths(alone, teacher=shape.shape, key=key)
    return shape


def ask_cluster(config: AnyExperiment) -> Hardware:
    """What the cluster that the configuration names has."""
    # Ray only for who attaches to a cluster.
    from orchestration.cluster.nodes import cluster_hardware

    return cluster_hardware(config)


@contextmanager
def borrowed_models(models_root: Path) -> Iterator[Path]:
    """A temporary models root with all that the real one holds: what a plan has to make of a model goes with it.

    Raises:
        ConfigError: there is no room for temporary files.
    """
    try:
        with scratch_directory("plan") as borrowed:
            for entry in models_root.iterdir() if models_root.is_dir() else ():
                if entry.is_dir() and not entry.name.endswith(STAGING):
                    (borrowed / entry.name).symlink_to(entry.absolute())
            for memo in (models_root / FINGERPRINTS, models_root / ARCHITECTURES):
                if memo.is_file():
                    shutil.copyfile(memo, borrowed / memo.name)
            yield borrowed
    except FileNotFoundError as error:
        raise ConfigError(f"a plan needs a place for temporary files ({error.strerror}): set TMPDIR to one") from error


def _show_other_tokens(config: DistillConfig, teacher: Teacher, prompts: PromptSet, *, console: Console) -> None:
    """Say how the tokenizers of students that have another one go together with the teacher's.

    Raises:
        DistillError: a student cannot learn so.
    """
    for name, student in config.students.items():
        source = student.init.model
        if source is None or not is_at_hand(source):
            continue
        files = materialise(source, models_root=config.runtime.models_root)
        if has_other_tokens(files, teacher.files):
            tokens = tokens_of(name, files, config=config, teacher=teacher.files, prompts=prompts)
            said, warnings = tokens_in_words(name, tokens, config=config, teacher=teacher.files)
            for line in said:
                console.say(line)
            for line in warnings:
                console.warn(line)


def _held(config: DistillConfig, teacher: Teacher) -> Holdings:
    """The teacher's cache if there is one; none is made."""
    root = config.runtime.cache_root
    if not is_url(root) and not (Path(root) / teacher.identity.digest()).exists():
        return NothingHeld()
    return TeacherCache.open(root, teacher.identity, create=False)


def _saved(plan: FillPlan, *, config: DistillConfig, teacher: Teacher | None) -> Saved:
    """What the cache saves of a teacher that is paid by the token; nothing where there is no cache yet."""
    price, cache = config.teacher.price, None if teacher is None else _held(config, teacher)
    if price is None or not isinstance(cache, TeacherCache):
        return NOTHING_SAVED
    return saved_by_cache(plan, cache=cache, price=price)


def _cut_to(hardware: Hardware, config: DistillConfig, *, console: Console) -> DistillConfig:
    """The configuration with as many engines and workers as the assumed GPUs hold; numbers do not depend on them."""
    runtime = config.runtime
    changed: dict[str, EngineSettings | TrainingSettings] = {}
    for role in ("teacher_engine", "student_engine"):
        engine: EngineSettings = getattr(runtime, role)
        whole = hardware.nodes * (hardware.gpus_per_node // engine.ranks)
        # A group that does not fit at all is left as it is, and refused with its cure.
        if 0 < whole < engine.count:
            console.warn(f"runtime.{role}.count={engine.count}: planned with the {whole} that these GPUs hold")
            changed[role] = engine.model_copy(update={"count": whole})
    workers = hardware.nodes * hardware.gpus_per_node
    if workers < runtime.training.workers:
        console.warn(f"runtime.training.workers={runtime.training.workers}: planned with {workers}, one a GPU")
        changed["training"] = runtime.training.model_copy(update={"workers": workers})
    return config.model_copy(update={"runtime": runtime.model_copy(update=changed)})


def _assumed_shape(config: DistillConfig, *, key: str) -> PlannedShape:
    shape = shape_at_hand(config.teacher.model)
    if shape is None:
        raise ConfigError(
            f"{key}.model={config.teacher.model.label} is not on this machine and has no shape to plan with: "
            f"download it, or write its sizes under {key}.model.shape"
        )
    return shape


def _assumed_plan(config: DistillConfig) -> FillPlan:
    """Every row a miss of the longest prompt and answer; splits of unknown length are left out."""
    data, answer = config.data, config.generation.max_new_tokens
    prompt = Prompt(0, "", prompt_ids=(0,) * data.max_prompt_tokens, gold_ids=(0,) * answer)
    rows = {split: (prompt,) * (source.assumed_rows or 0) for split, source in data.splits.items()}
    sets = sequence_sets(config, rows, stop_ids=())
    return plan_fill([part for part in sets if part.requests], cache=NothingHeld())
