"""What a run took, as a short table after its comparison."""

from __future__ import annotations

import math

from rich.table import Table

from configs.models import Device
from evaluation.cost import whole
from evaluation.results import RunCost
from orchestration.outputs.console import Console, clock

UNKNOWN = "-"
JOULES_PER_WH = 3600.0


def print_cost(cost: RunCost, console: Console, *, device: Device) -> None:
    """Teacher tokens that were paid for and that the cache saved, then the energy of the run.

    What counts as the hours of a GPU on `device: cpu` are those of an engine or a worker group, and are called so.
    """
    table = Table(title="Cost")
    priced = bool(cost.currency)
    hours_of = "GPU hours" if device == "gpu" else "engine hours"
    for title in ("", "teacher tokens", hours_of, "energy", *([cost.currency] if priced else [])):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    together = whole(cost)
    rows = {
        "paid": (cost.teacher_tokens, cost.teacher_hours, together.joules, cost.paid),
        "saved by the cache": (cost.saved_tokens, cost.saved_hours, cost.saved_joules, cost.saved),
    }
    for name, (tokens, hours, joules, amount) in rows.items():
        cells = [name, f"{tokens:,}", _number(hours, "{:.3f}"), energy(joules)]
        table.add_row(*cells, *([_number(amount, "{:,.2f}")] if priced else []))
    console.say(table)
    if not math.isnan(together.joules):
        largest = sorted(cost.stages, key=lambda stage: stage.joules, reverse=True)[:3]
        stages = ", ".join(f"{stage.name} {energy(stage.joules)}" for stage in largest)
        console.say(
            f"Energy: {energy(together.joules)} in {clock(together.seconds)}, {1000 * together.co2_kg:,.1f} g CO2; "
            f"most of it: {stages}. Source: {cost.energy_source}."
        )


def energy(joules: float) -> str:
    """Watt-hours as people read them."""
    return _number(joules / JOULES_PER_WH, "{:,.2f} Wh")


def _number(value: float, form: str) -> str:
    return UNKNOWN if math.isnan(value) else form.format(value)
