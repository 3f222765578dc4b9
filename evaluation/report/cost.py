"""What it took: serving, training, the teacher's tokens and what the cache saved of them, time and energy by stage."""

from __future__ import annotations

import math

from evaluation.report.blocks import Block, Cell, Column, Lines, Row, Section, Table
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, Unit, clock, interval, money, written
from evaluation.report.text_serving import text_table
from evaluation.results import ModelResults, RunResults, Spread
from evaluation.serving import text_batches
from evaluation.shipping import distils_a_task


def cost_section(part: Part) -> Section:
    """All costs of the runs; a machine never shares a table with another one."""
    blocks: list[Block] = [*_serving(part)]
    training = _training(part)
    if training is not None:
        blocks.append(training)
    blocks.append(_teacher(part))
    blocks += [_stages(name, run, alone=len(part.runs) == 1) for name, run in part.runs.items()]
    return Section("cost", "Cost", tuple(blocks))


def machines(part: Part) -> dict[str, list[ModelResults]]:
    """The models that were served on each machine and setting; the one with the most models first."""
    found: dict[str, list[ModelResults]] = {}
    for model in part.results.models:
        if model.serving is not None:
            found.setdefault(model.serving.measured_on, []).append(model)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _serving(part: Part) -> list[Block]:
    blocks: list[Block] = []
    for machine, served in machines(part).items():
        heads = [model for model in served if text_batches(model)]
        models = [model for model in served if not text_batches(model)]
        if heads:
            blocks.append(text_table(part, machine, heads))
        if not models:
            continue
        batches = sorted({speed.batch for model in models if model.serving for speed in model.serving.speeds})
        columns = [
            *(Column(f"{title}, batch {batch}", note) for batch in batches for title, note in _SPEED_COLUMNS),
            Column("host memory", "peak"),
            Column("GPU memory", "peak"),
            Column("energy", "a token"),
        ]
        rows = tuple(
            Row(model.name, tuple(_serving_cells(model, batches)), number=part.numbers[model.name]) for model in models
        )
        caption = f"Serving, measured on {machine}; median, and lowest to highest of the runs"
        blocks.append(Table(caption, "model", tuple(columns), rows))
    unserved = [model.name for model in part.results.models if model.serving is None]
    if unserved:
        what = "Speed and memory" if distils_a_task(part.results) else "Speed, memory and energy"
        blocks.append(Lines(f"{what} were not measured of", tuple(unserved)))
    return blocks


_SPEED_COLUMNS = (("first token", ""), ("each token", ""), ("tokens", "a second"))


def _serving_cells(model: ModelResults, batches: list[int]) -> list[Cell]:
    assert model.serving is not None
    speeds = {speed.batch: speed for speed in model.serving.speeds}
    cells: list[Cell] = []
    for batch in batches:
        speed = speeds.get(batch)
        if speed is None:
            cells += [Cell(MISSING)] * len(_SPEED_COLUMNS)
        else:
            cells += [_spread(speed.first_token_s, "seconds"), _spread(speed.token_s, "seconds")]
            cells.append(_spread(speed.tokens_per_s, "count"))
    serving = model.serving
    gpu = "none used" if serving.peak_gpu_bytes == 0 else written(serving.peak_gpu_bytes, "bytes")
    return [
        *cells,
        Cell(written(serving.peak_host_bytes, "bytes")),
        Cell(gpu),
        Cell(written(serving.joules_per_token, "joules")),
    ]


def _spread(spread: Spread, unit: Unit) -> Cell:
    text = written(spread.median, unit)
    return Cell(text, "one run" if spread.runs == 1 else interval(spread.low, spread.high, unit))


def _training(part: Part) -> Table | None:
    trained = [model for model in part.results.models if model.training is not None]
    if not trained:
        return None
    rows = []
    for model in trained:
        training = model.training
        assert training is not None
        cells = (
            Cell(written(training.seconds, "seconds")),
            Cell(written(training.tokens, "tokens")),
            Cell(written(training.joules, "joules")),
            Cell(training.trained_on or MISSING),
        )
        rows.append(Row(model.name, cells, number=part.numbers[model.name]))
    columns = (Column("time"), Column("tokens"), Column("energy"), Column("trained on", numeric=False))
    return Table(
        "Training; of a student that was reused, what it took when it was made", "student", columns, tuple(rows)
    )


def _teacher(part: Part) -> Table:
    """What the teacher's answers took, and what they would have taken without the cache."""
    rows = []
    for name, run in part.runs.items():
        cost = run.cost
        rows += [
            Row(
                _of("paid for", name, part),
                _purchase(cost.teacher_tokens, cost.teacher_hours, math.nan, cost.paid, run),
            ),
            Row(
                _of("saved by the cache", name, part),
                _purchase(cost.saved_tokens, cost.saved_hours, cost.saved_joules, cost.saved, run),
            ),
        ]
    columns = (Column("tokens"), Column("time"), Column("energy"), Column("money"))
    return Table("The teacher's tokens", "tokens", columns, tuple(rows))


def _purchase(tokens: int, hours: float, joules: float, amount: float, run: RunResults) -> tuple[Cell, ...]:
    return (
        Cell(written(tokens, "tokens")),
        Cell(written(3600 * hours, "seconds")),
        Cell("see the stages" if math.isnan(joules) else written(joules, "joules")),
        Cell(money(amount, run.cost.currency)),
    )


def _stages(name: str, run: RunResults, *, alone: bool) -> Table:
    rows = [
        Row(
            stage.name,
            (
                Cell(written(stage.seconds, "seconds")),
                Cell(written(stage.joules, "joules")),
                Cell(written(1000 * stage.co2_kg, "grams")),
            ),
        )
        for stage in run.cost.stages
    ]
    seconds = sum(stage.seconds for stage in run.cost.stages)
    joules = sum(stage.joules for stage in run.cost.stages)
    grams = 1000 * sum(stage.co2_kg for stage in run.cost.stages)
    total = clock(seconds) if seconds >= 60 else written(seconds, "seconds")
    rows.append(Row("together", (Cell(total), Cell(written(joules, "joules")), Cell(written(grams, "grams")))))
    source = f"energy: {run.cost.energy_source}" if run.cost.energy_source else "energy was not measured"
    caption = f"Time and energy by stage ({source})" if alone else f"Time and energy by stage of {name} ({source})"
    return Table(caption, "stage", (Column("time"), Column("energy"), Column("CO₂")), tuple(rows))


def _of(what: str, name: str, part: Part) -> str:
    return what if len(part.runs) == 1 else f"{what}, {name}"
