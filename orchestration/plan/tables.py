"""The plan of a run as people read it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from cache import ScoreRequest
from configs import Experiment
from configs.budgets import CURRENCY
from configs.models import Device
from configs.schema import DistillConfig
from configs.teachers import FIRST
from evaluation.cost import NOTHING_SAVED, Saved, Usage, money
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.console import Console, clock
from orchestration.plan.duration import FillTime, TeacherWork, expected_seconds
from orchestration.plan.fitting import assumed_mark
from orchestration.plan.hardware import GIB, Hardware, HostMemory
from orchestration.plan.host_memory import HostPhase
from orchestration.plan.left_out import left_out_in_words
from orchestration.plan.machine import lacks_bfloat16
from orchestration.plan.memory import USABLE, MemoryFit, MemoryItem
from orchestration.plan.placement import Placement
from orchestration.plan.requests import FillPlan, SetPlan, rollout_tokens

_FOR = {"train": "learn", "dev": "measure by"}


def show_plan(plan: FillPlan, *, time: FillTime | None, console: Console, assumed_rows: bool = False) -> None:
    """Print hits and misses set by set, and what the misses would cost at most.

    How long a teacher behind a door takes (no `time`) is not known.
    """
    mark = " (assumed)" if assumed_rows else ""
    table = Table(title="What the teacher is asked")
    for title in ("sequences", "rows", "cached", "to ask", "prompt tokens", "response tokens ≤"):
        table.add_column(title, justify="left" if title == "sequences" else "right", no_wrap=True)
    for part in plan.sets:
        # What is stored as text alone is a miss of the cache, and nothing that the teacher is asked.
        asked = (part.misses, part.prompt_tokens, part.response_tokens) if part.asks_teacher else (0, 0, 0)
        table.add_row(
            part.sequences.name,
            f"{len(part.sequences.requests):,}",
            f"{part.hits:,}",
            f"{asked[0]:,}",
            f"{asked[1]:,}{mark}",
            f"{asked[2]:,}{mark}",
        )
    console.say(table)
    unanswered = "could not be answered by this version of the engine before and are left out"
    for line in left_out_in_words(plan.refused, unanswered=unanswered, what="rows"):
        console.say(line)
    if not plan.asks_teacher:
        rest = "every row" if not plan.refused else "every other row"
        console.say(f"Nothing to ask: {rest} is in the cache and no engine starts for it.")
        return
    took = "asked where it answers" if time is None else f"about {clock(time.seconds)} with the engine's start"
    console.say(
        f"At most {plan.prompt_tokens + plan.response_tokens:,} teacher tokens{mark}, "
        f"{plan.stored_bytes / 2**20:,.1f} MiB of cache{mark}, {took}"
        + (" (assumed)." if (time is not None and time.assumed) or assumed_rows else ".")
    )


def show_money(
    plan: FillPlan,
    *,
    time: FillTime | None,
    config: DistillConfig,
    console: Console,
    saved: Saved = NOTHING_SAVED,
) -> None:
    """Print what the misses would cost at most; nothing without prices, or where nobody's GPUs are ours (no `time`).

    Of a teacher that is paid by the token also what `saved` is worth.
    """
    prices, price = config.prices, config.teacher.price
    currency = CURRENCY if prices is None else prices.currency
    if saved.paid:
        console.say(
            f"What is cached would cost about {saved.paid:,.2f} {currency} to ask for again: {saved.tokens:,} tokens."
        )
    if not plan.asks_teacher:
        return
    if price is not None:
        work = teacher_work(plan)
        most = price.cost(read=work.read_tokens, written=work.written_tokens)
        limit = config.budgets.max_teacher_money
        within = "" if limit is None else f"; budgets.max_teacher_money={limit:g} ends it where that is spent"
        console.say(
            f"The teacher costs at most about {most:,.2f} {currency}, at {price.read:g} a million tokens read and "
            f"{price.written:g} written{within}; rows that are cached cost nothing."
        )
        return
    if prices is None:
        return
    if time is None and prices.teacher_million_tokens is None:
        return
    engines = config.runtime.teacher_engine
    seconds = 0.0 if time is None else time.seconds * engines.count * engines.ranks
    usage = Usage(plan.prompt_tokens + plan.response_tokens, seconds)
    by = "a million tokens" if prices.teacher_million_tokens is not None else "a GPU hour"
    each = prices.gpu_hour if prices.teacher_million_tokens is None else prices.teacher_million_tokens
    console.say(
        f"The teacher costs at most about {money(usage, prices):,.2f} {prices.currency}, at {each:g} {by}; "
        "rows that are cached cost nothing."
    )


def show_plain(plan: FillPlan, *, config: DistillConfig, console: Console) -> None:
    """Print what reading windows of plain text takes of the teacher, by the cache or beside students."""
    sets = {part.sequences.split: part for part in plan.sets if part.sequences.source == "plain"}
    if not sets:
        return
    tokens = {split: sum(len(r.token_ids) for r in _scored(part)) for split, part in sets.items()}
    windows = ", ".join(
        f"{len(part.sequences.requests):,} to {_FOR[split]} ({tokens[split]:,} tokens)" for split, part in sets.items()
    )
    once = (
        "the teacher scores each once, and what is cached costs nothing"
        if any(part.sequences.k for part in sets.values())
        else "the cache keeps them as text, for which the teacher is not asked"
    )
    console.say(f"Windows of plain text: {windows}; {once}.")
    for name, student in config.students.items():
        for number, stage in enumerate(student.stages):
            if student.teacher is not None or stage.source != "plain" or not stage.reads_live:
                continue
            spent = (
                f"{stage.steps * stage.tokens_per_step:,} tokens at most in {stage.steps:,} steps"
                if stage.steps is not None
                else f"about {round((stage.epochs or 0.0) * tokens['train']):,} tokens in {stage.epochs:g} epochs"
            )
            console.say(
                f"students.{name}.stages.{number} reads them with the teacher beside it, which reads {spent}, and "
                f"{tokens['dev']:,} each time that it is measured; nothing of it is kept."
            )


def warn_of_slow_dtype(
    config: Experiment, *, hardware: Hardware, console: Console, nothing_to_ask: Collection[str] = ()
) -> None:
    """Say so where something computes in what this machine's processors have no instructions for, and how to mend it.

    Of the teachers named in `nothing_to_ask` every answer is there: they do not compute.
    """
    if hardware.accelerator != "cpu" or config.runtime.ray_address is not None or not lacks_bfloat16():
        return
    idle = {"teacher.dtype" if name == FIRST else f"teachers.{name}.dtype" for name in nothing_to_ask}
    written = config.model_dump(mode="json", include={"teacher", "teachers", "students"})
    keys = [key for key in _in_bfloat16(written) if key not in idle]
    if keys:
        console.warn(
            "this CPU has no instructions for bfloat16: on such a one an engine took three times as long as in "
            "float32, and a training eight to eleven times. What is computed in it changes numbers, so it is yours to "
            "say: "
            f'SET="{" ".join(f"{key}=float32" for key in keys)}"'
        )


def _in_bfloat16(said: Any, *path: str) -> Iterator[str]:
    """The keys of a configuration, as `--set` takes them, that say so."""
    if isinstance(said, dict):
        parts: Iterable[tuple[str, Any]] = said.items()
    else:
        parts = ((str(at), each) for at, each in enumerate(said)) if isinstance(said, list) else ()
    for name, each in parts:
        if (name, each) == ("dtype", "bfloat16"):
            yield ".".join((*path, name))
        else:
            yield from _in_bfloat16(each, *path, name)


def show_rollouts(config: DistillConfig, *, console: Console) -> None:
    """Print what the teacher will be asked while students learn from what they write themselves."""
    for name, student in config.students.items():
        for stage in student.stages:
            rollout = stage.rollout
            if rollout is None:
                continue
            if rollout.replay_from is not None:
                console.say(f"{name} learns from the rollouts in {rollout.replay_from} and asks no teacher.")
                continue
            tokens = rollout_tokens(rollout, longest_prompt=config.data.max_prompt_tokens)
            console.say(
                f"{name} writes {rollout.count} x {rollout.prompts} sequences itself: the teacher scores them while it "
                f"trains, at most {tokens:,} tokens more."
            )


def fill_time(plan: FillPlan, *, config: DistillConfig, teacher: PlannedShape, accelerator: Device) -> FillTime | None:
    """Estimated wall time of the misses; None of a teacher that answers behind a door."""
    if config.teacher.elsewhere is not None:
        return None
    return expected_seconds(
        teacher,
        work=teacher_work(plan),
        settings=config.runtime.teacher_engine,
        accelerator=accelerator,
        dtype=config.teacher.dtype,
        quantization=config.teacher.quantization,
    )


def teacher_work(plan: FillPlan) -> TeacherWork:
    """Tokens that the misses ask of the teacher, at most."""
    scored = sum(len(r.token_ids) - r.prompt_len for p in plan.sets if p.asks_teacher for _, r in p.missing.score)
    return TeacherWork(plan.prompt_tokens + scored, plan.response_tokens - scored)


def render_placement(placement: Placement, *, fill: FillTime | None = None) -> list[str]:
    """What runs where and what it holds, as lines for people; numbers that rest on an assumed shape are marked."""
    hardware = placement.hardware
    lines = [_hardware_line(hardware)]
    unit, device = ("GPU", "GPU") if hardware.accelerator == "gpu" else ("process", "CPU")
    for part in placement.parts:
        dealt = part.dealt(hardware)
        how = f", {'packed' if part.packed else 'spread'} over machines: {' + '.join(map(str, dealt))}" if dealt else ""
        lines.append(f"  {part.kind}s: {part.count} x {part.each:g} {device}{'' if part.each == 1 else 's'}{how}")
    room = f" of {hardware.gpu_memory_gib * USABLE:.1f} usable" if hardware.accelerator == "gpu" else ""
    for fit, names in _distinct(placement.fits):
        lines.append(f"  {names}: {fit.total_bytes / GIB:.2f} GiB{room} a {unit}{assumed_mark(assumed=fit.assumed)}")
        for item in fit.items:
            lines.append(f"    {item.name:<11} {item.size_bytes / GIB:8.2f} GiB  {item.arithmetic}")
    lines += _memory_lines(placement.phases, memory=hardware.memory)
    if fill is not None:
        spent = f", {fill.gpu_hours:.1f} GPU hours" if fill.gpus else ""
        lines.append(
            f"  fill: about {_duration(fill.seconds)}{spent} "
            f"(reads {fill.read_rate:,.0f}, writes {fill.write_rate:,.0f} tokens/s){assumed_mark(assumed=fill.assumed)}"
        )
    return lines + [f"  note: {note}" for note in placement.notes]


def _scored(part: SetPlan) -> Iterator[ScoreRequest]:
    return (request for request in part.sequences.requests if isinstance(request, ScoreRequest))


def _hardware_line(hardware: Hardware) -> str:
    if hardware.accelerator == "cpu":
        cpus = "" if hardware.cpus is None else f", {hardware.cpus} CPUs each"
        return f"placement on CPUs: {hardware.nodes} node(s){cpus}"
    return (
        f"placement on GPUs: {hardware.nodes} node(s) x {hardware.gpus_per_node} x {hardware.gpu_memory_gib:g} GiB; "
        "phases follow one another and reuse them"
    )


def _memory_lines(phases: Sequence[HostPhase], *, memory: HostMemory | None) -> list[str]:
    """A line for all phases that take the same of a machine, but for whose they are."""
    room = "" if memory is None else f" of {memory.total_gib * USABLE:.1f} usable"
    groups: dict[tuple[tuple[str, float], ...], list[HostPhase]] = {}
    for phase in phases:
        groups.setdefault(tuple((_whoever(part.name), part.size_bytes) for part in phase.parts), []).append(phase)
    lines = []
    for parts, same in groups.items():
        named = [(part.name, part.size_bytes) for part in same[0].parts] if len(same) == 1 else parts
        terms = " + ".join(f"{name} {size / GIB:.2f}" for name, size in named)
        labels = "; ".join(phase.label for phase in same)
        lines.append(f"  memory of a machine, {labels}: {same[0].total_bytes / GIB:.2f} GiB{room} ({terms})")
    return lines


def _whoever(part: str) -> str:
    """A part of a phase without the name of the student that it is of: "training worker, kd" is a training worker."""
    return part.partition(", ")[0]


def _distinct(fits: Sequence[MemoryFit]) -> list[tuple[MemoryFit, str]]:
    """Fits that differ in more than their label, each with the labels that share it."""
    groups: dict[tuple[MemoryItem, ...], list[MemoryFit]] = {}
    for fit in fits:
        groups.setdefault(fit.items, []).append(fit)
    return [(same[0], "; ".join(fit.label for fit in same)) for same in groups.values()]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
