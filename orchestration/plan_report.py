"""The plan of a run as people read it."""

from __future__ import annotations

from rich.table import Table

from configs.schema import DistillConfig, ModelShape
from orchestration.console import Console, clock
from orchestration.placement import expected_fill_seconds
from orchestration.plan import FillPlan
from orchestration.preflight import Device


def show_plan(
    plan: FillPlan, *, config: DistillConfig, shape: ModelShape, console: Console, device: Device, assumed: str = ""
) -> None:
    """Print hits and misses set by set, and what the misses would cost at most."""
    table = Table(title="What the teacher is asked" + assumed)
    for title in ("sequences", "rows", "in the cache", "to ask", "prompt tokens", "response tokens, at most"):
        table.add_column(title, justify="left" if title == "sequences" else "right", no_wrap=True)
    for part in plan.sets:
        table.add_row(
            part.sequences.name,
            f"{len(part.sequences.requests):,}",
            f"{part.hits:,}",
            f"{part.misses:,}",
            f"{part.prompt_tokens:,}",
            f"{part.response_tokens:,}",
        )
    console.say(table)
    if not plan.asks_teacher:
        console.say("Nothing to ask: the teacher is not started.")
        return
    seconds = expected_fill_seconds(
        config, shape, prompt_tokens=plan.prompt_tokens, response_tokens=plan.response_tokens, accelerator=device
    )
    console.say(
        f"At most {plan.prompt_tokens + plan.response_tokens:,} teacher tokens, {plan.stored_bytes / 2**20:,.1f} MiB "
        f"of cache, about {clock(seconds)} once the engine is up."
    )
