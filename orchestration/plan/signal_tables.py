"""The plan of a fill with signals as people read it."""

from __future__ import annotations

from rich.table import Table

from configs.architecture import TextModel
from configs.models import Device
from configs.task_experiment import TaskDistillConfig
from orchestration.outputs.console import Console, clock
from orchestration.plan.duration import FillTime, expected_signal_seconds
from orchestration.plan.left_out import left_out_in_words
from orchestration.plan.signal_requests import SignalPlan


def signal_fill_time(
    plan: SignalPlan, *, config: TaskDistillConfig, teacher: TextModel, accelerator: Device
) -> FillTime | None:
    """Estimated wall time of the misses; None of a teacher that answers behind a door."""
    if config.teacher.serve is not None:
        return None
    return expected_signal_seconds(
        teacher,
        tokens=plan.tokens,
        settings=config.runtime.teacher_engine,
        accelerator=accelerator,
        dtype=config.teacher.dtype,
    )


def show_signal_plan(plan: SignalPlan, *, time: FillTime | None, max_tokens: int, console: Console) -> None:
    """Print hits and misses set by set, what the misses would cost, and how many texts are cut to `max_tokens`.

    Of a teacher behind a door nobody here knows the `time`.
    """
    table = Table(title="What the teacher is asked")
    for title in ("texts", "rows", "cut", "signals", "cached", "to ask", "tokens to read"):
        table.add_column(title, justify="left" if title == "texts" else "right", no_wrap=True)
    for part in plan.sets:
        table.add_row(
            part.signals.name,
            f"{len(part.signals.texts):,}",
            f"{part.signals.cut:,}",
            f"{part.asked:,}",
            f"{part.hits:,}",
            f"{part.misses:,}",
            f"{part.tokens:,}",
        )
    console.say(table)
    if plan.cut:
        texts = sum(len(part.signals.texts) for part in plan.sets)
        console.warn(
            f"{plan.cut:,} of {texts:,} texts are longer than teacher.max_tokens={max_tokens} and are cut: the teacher "
            "judges their beginnings; raise it if the model reads more"
        )
    unanswered = "were refused by the teacher before and are not asked again"
    for line in left_out_in_words(plan.refused, unanswered=unanswered, what="signals"):
        console.say(line)
    if not plan.asks_teacher:
        console.say("Nothing to ask: every signal is in the cache and no engine starts for it.")
        return
    rows = "; ".join(f"{signal}: {size:,} bytes a row" for signal, size in plan.row_bytes.items())
    takes = "answered behind a door" if time is None else f"about {clock(time.seconds)} with the engine's start"
    console.say(
        f"{plan.tokens:,} teacher tokens, at most {plan.stored_bytes / 2**20:,.1f} MiB of cache ({rows}), {takes}."
    )
