"""What a run took, as a person reads it."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from configs.models import Device
from evaluation.results import RunCost, StageCost
from orchestration.comparison.cost_table import energy, print_cost
from orchestration.outputs.console import Console

COST = RunCost(
    stages=(StageCost("fill", 60.0, 7200.0, 1e-3), StageCost("train kd", 30.0, 3600.0, 5e-4)),
    energy_source="codecarbon (CPU: estimated)",
    teacher_tokens=12_000,
    saved_tokens=36_000,
    teacher_hours=0.25,
    saved_hours=0.75,
    saved_joules=18_000.0,
    paid=1.5,
    saved=4.5,
    currency="EUR",
)


def shown(cost: RunCost, *, device: Device = "cpu") -> str:
    stream = io.StringIO()
    print_cost(cost, Console(stream), device=device)
    return stream.getvalue()


def test_paid_and_saved_stand_one_above_the_other() -> None:
    text = shown(COST)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert lines == [
        ["paid", "12,000", "0.250", "3.00 Wh", "1.50"],
        ["saved by the cache", "36,000", "0.750", "5.00 Wh", "4.50"],
    ]
    assert "EUR" in text
    assert "Energy: 3.00 Wh in 1m 30s, 1.5 g CO2; most of it: fill 2.00 Wh, train kd 1.00 Wh." in text
    assert "Source: codecarbon (CPU: estimated)." in text


def test_hours_are_those_of_gpus_where_there_are_any() -> None:
    assert "engine hours" in shown(COST) and "GPU" not in shown(COST)
    assert "GPU hours" in shown(COST, device="gpu") and "engine" not in shown(COST, device="gpu")


def test_what_is_not_known_is_no_number() -> None:
    stages = tuple(replace(stage, joules=math.nan, co2_kg=math.nan) for stage in COST.stages)
    text = shown(replace(COST, stages=stages, saved_joules=math.nan, paid=math.nan, saved=math.nan, currency=""))
    assert "nan" not in text and "Energy:" not in text and "EUR" not in text
    assert energy(math.nan) == "-"
