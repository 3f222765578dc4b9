"""The first screen: the verdict in words, the table of all models, and quality against what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from evaluation.report.blocks import Block, Cell, Chart, Charts, Column, Folded, Paragraph, Row, Table
from evaluation.report.charts import Point, Words, pareto_chart
from evaluation.report.cost import machines
from evaluation.report.judged import Judged
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, Unit, interval, written
from evaluation.results import ModelResults, Speed
from evaluation.serving import text_batches, text_speed
from evaluation.shipping import constant_answer, distils_a_task

MARKS_SAY = (
    "▲ better, ▼ worse, ≈ no difference seen, on the same examples (paired permutation test, 5 %, Holm's correction "
    "over the students); against the teacher, the student's own start, and the simplest method or gold labels alone."
)


TEXT_TIME = "time a text"


@dataclass(frozen=True, slots=True)
class Expense:
    """Something that a model takes, for the table and for a plot."""

    title: str
    unit: Unit
    note: str
    of: Callable[[ModelResults], float]
    of_engine: bool = True


def comparison_table(part: Part, judged: Sequence[Judged], *, chosen: str | None) -> Table:
    """All models with all that they are judged by; `chosen` is the student that the verdict recommends."""
    shown = [each for each in judged if each.quality.headline]
    spent = [expense for expense in expenses(part) if expense.of_engine]
    columns = [Column(each.quality.title, f"{each.quality.metric.better} is better") for each in shown] + [
        Column(each.title, each.note) for each in spent
    ]
    rows = []
    for model in part.results.models:
        cells = [_judged_cell(each, model.name) for each in shown]
        cells += [Cell(written(each.of(model), each.unit)) for each in spent]
        size = f"{written(model.parameters, 'parameters')}, {written(model.disk_bytes or math.nan, 'bytes')}"
        note = f"{model.method}; {size}" if model.role == "student" and model.method != model.name else size
        rows.append(
            Row(model.name, tuple(cells), note=note, number=part.numbers[model.name], chosen=model.name == chosen)
        )
    if distils_a_task(part.results):
        rows.append(_constant_row(part, shown, others=len(spent)))
    return Table(_caption(part), "model", tuple(columns), tuple(rows))


def _constant_row(part: Part, shown: Sequence[Judged], *, others: int) -> Row:
    """What a model has to beat before it is worth anything."""
    floors = [math.nan if each.quality.floor is None else each.quality.floor for each in shown]
    cells = [Cell(written(floor, each.quality.metric.unit)) for floor, each in zip(floors, shown, strict=True)]
    name = constant_answer(part.results.tasks[0])
    return Row(name, (*cells, *[Cell("none")] * others), note="answers one thing always")


def _caption(part: Part) -> str:
    machine = next(iter(machines(part)), None)
    caption = "All models on the test split, with 95 % intervals; below a name its parameters and bytes on disk"
    what = "speed" if distils_a_task(part.results) else "speed and energy"
    return caption if machine is None else f"{caption}; {what} on {machine}"


def pareto_blocks(part: Part, judged: Sequence[Judged]) -> list[Block]:
    """Quality against each expense: the first task at once, closeness when asked for."""
    shown = [each for each in judged if each.quality.headline]
    # The first task, and the first number of closeness: more would be the same picture again.
    first_of = {each.quality.task is None: each for each in reversed(shown)}
    picked = [each for each in shown if each in first_of.values()]
    drawn = [(each, charts) for number, each in enumerate(picked) if (charts := _pareto(part, each, number))]
    if not drawn:
        return [Paragraph("Quality against cost cannot be drawn: fewer than two models have both.")]
    (first, charts), others = drawn[0], drawn[1:]
    blocks: list[Block] = [Charts(charts, _legend(part, first))]
    if others:
        names = ", ".join(each.quality.title for each, _ in others)
        blocks.append(Folded(f"The same by {names}", tuple(Charts(each, ()) for _, each in others)))
    return blocks


def expenses(part: Part) -> list[Expense]:
    """Size, latency, throughput and energy; of one machine alone, the one that served the most models."""
    size = Expense("size on disk", "bytes", "", lambda model: float(model.disk_bytes or math.nan), of_engine=False)
    machine, models = next(iter(machines(part).items()), (None, []))
    if machine is None:
        return [size]
    batches = sorted({speed.batch for model in models if model.serving for speed in model.serving.speeds})
    found = [size]
    for batch in sorted({batch for model in models for batch in text_batches(model)}):
        text_s = partial(_text_s, machine=machine, batch=batch)
        found.append(Expense(TEXT_TIME, "seconds", f"batch {batch}", text_s))
    if not batches:
        return found
    least, most = batches[0], batches[-1]
    found += [
        Expense("time a token", "seconds", f"batch {least}", partial(_token_s, machine=machine, batch=least)),
        Expense("tokens a second", "count", f"batch {most}", partial(_tokens_per_s, machine=machine, batch=most)),
    ]
    return [*found, Expense("energy a token", "joules", "", partial(_joules, machine=machine))]


def _text_s(model: ModelResults, *, machine: str, batch: int) -> float:
    speed = text_speed(model, batch)
    if speed is None or model.serving is None or model.serving.measured_on != machine:
        return math.nan
    return speed.spread.median


def _token_s(model: ModelResults, *, machine: str, batch: int) -> float:
    speed = _speed(model, machine=machine, batch=batch)
    return math.nan if speed is None else speed.token_s.median


def _tokens_per_s(model: ModelResults, *, machine: str, batch: int) -> float:
    speed = _speed(model, machine=machine, batch=batch)
    return math.nan if speed is None else speed.tokens_per_s.median


def _joules(model: ModelResults, *, machine: str) -> float:
    serving = model.serving
    return serving.joules_per_token if serving is not None and serving.measured_on == machine else math.nan


def _speed(model: ModelResults, *, machine: str, batch: int) -> Speed | None:
    """The speed with this batch, on this machine alone."""
    if model.serving is None or model.serving.measured_on != machine:
        return None
    return next((speed for speed in model.serving.speeds if speed.batch == batch), None)


def _judged_cell(judged: Judged, name: str) -> Cell:
    found = judged.estimates.get(name)
    if found is None:
        return Cell(MISSING)
    unit = judged.quality.metric.unit
    bounds = interval(found.interval.low, found.interval.high, unit)
    return Cell(written(found.value, unit), bounds, judged.marks(name))


def _pareto(part: Part, judged: Judged, number: int) -> tuple[Chart, ...]:
    metric = judged.quality.metric
    charts = []
    for index, expense in enumerate(each for each in expenses(part) if each.title != "tokens a second"):
        points = [
            _point(part, model, judged, expense) for model in part.results.models if model.name in judged.estimates
        ]
        points = [point for point in points if math.isfinite(point.y) and math.isfinite(point.x) and point.x > 0]
        if len(points) < 2:
            continue
        # A time a text is plotted for several batches.
        noted = f", {expense.note}" if expense.title == TEXT_TIME else ""
        told = "; ".join(f"{p.label}: {written(p.y, metric.unit)} at {written(p.x, expense.unit)}" for p in points)
        words = Words(
            key=f"{part.key}pareto-{number}-{index}",
            title=f"{judged.quality.title} against {expense.title}{noted}",
            description=f"{told}.",
            x=f"{expense.title}, {expense.note}" if expense.note else expense.title,
            y=judged.quality.title,
            x_unit=expense.unit,
            y_unit=metric.unit,
        )
        chart = pareto_chart(points, words, higher_is_better=metric.better == "higher")
        charts.append(Chart(chart, f"{words.title}. The line joins those that nobody beats in both."))
    return tuple(charts)


def _point(part: Part, model: ModelResults, judged: Judged, expense: Expense) -> Point:
    found = judged.estimates[model.name]
    return Point(
        model.name, part.numbers[model.name], expense.of(model), found.value, found.interval.low, found.interval.high
    )


def _legend(part: Part, judged: Judged) -> tuple[tuple[str, int], ...]:
    return tuple(
        (model.name, part.numbers[model.name]) for model in part.results.models if model.name in judged.estimates
    )
