"""The plan of a run as people read it."""

from __future__ import annotations

from rich.table import Table

from configs.models import Device
from configs.schema import DistillConfig
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.console import Console, clock
from orchestration.plan.duration import FillTime, TeacherWork, expected_seconds
from orchestration.plan.requests import FillPlan, rollout_tokens


def show_plan(plan: FillPlan, *, time: FillTime, console: Console, assumed_rows: bool = False) -> None:
    """Print hits and misses set by set, and what the misses would cost at most."""
    mark = " (assumed)" if assumed_rows else ""
    table = Table(title="What the teacher is asked")
    for title in ("sequences", "rows", "cached", "to ask", "prompt tokens", "response tokens ≤"):
        table.add_column(title, justify="left" if title == "sequences" else "right", no_wrap=True)
    for part in plan.sets:
        table.add_row(
            part.sequences.name,
            f"{len(part.sequences.requests):,}",
            f"{part.hits:,}",
            f"{part.misses:,}",
            f"{part.prompt_tokens:,}{mark}",
            f"{part.response_tokens:,}{mark}",
        )
    console.say(table)
    if not plan.asks_teacher:
        console.say("Nothing to ask: every row is in the cache and no engine starts for it.")
        return
    console.say(
        f"At most {plan.prompt_tokens + plan.response_tokens:,} teacher tokens{mark}, "
        f"{plan.stored_bytes / 2**20:,.1f} MiB of cache{mark}, about {clock(time.seconds)} with the engine's start"
        + (" (assumed)." if time.assumed or assumed_rows else ".")
    )


def show_rollouts(config: DistillConfig, *, console: Console) -> None:
    """Print what the teacher will be asked while students learn from what they write themselves."""
    for name, student in config.students.items():
        for stage in student.stages:
            rollout = stage.rollout
            if rollout is None:
                continue
            if rollout.replay_from is not None:
                console.say(f"{name} learns from the rollouts in {rollout.replay_from} and asks nobody.")
                continue
            tokens = rollout_tokens(rollout, longest_prompt=config.data.max_prompt_tokens)
            console.say(
                f"{name} writes {rollout.count} x {rollout.prompts} sequences itself: the teacher scores them while it "
                f"trains, at most {tokens:,} tokens more."
            )


def fill_time(plan: FillPlan, *, config: DistillConfig, teacher: PlannedShape, accelerator: Device) -> FillTime:
    """Estimated wall time of the misses."""
    scored = sum(len(r.token_ids) - r.prompt_len for p in plan.sets if p.asks_teacher for _, r in p.missing.score)
    return expected_seconds(
        teacher,
        work=TeacherWork(plan.prompt_tokens + scored, plan.response_tokens - scored),
        settings=config.runtime.teacher_engine,
        accelerator=accelerator,
        dtype=config.teacher.dtype,
        quantization=config.teacher.quantization,
    )
