"""What models with a task head take to answer a text, beside their teacher."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.blocks import Cell, Column, Row, Table
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.results import ModelResults, Spread
from evaluation.serving import text_batches, text_speed, times_faster, times_smaller


def text_table(part: Part, machine: str, models: Sequence[ModelResults]) -> Table:
    """The models that were measured on one machine: time a text, memory and size, and how far below their teacher's."""
    teacher = next((model for model in models if model.role == "teacher"), None)
    batches = sorted({batch for model in models for batch in text_batches(model)})
    columns = [
        *(
            column
            for batch in batches
            for column in (Column(f"a text, batch {batch}"), Column("times as fast", "as the teacher"))
        ),
        Column("memory", "peak, with Python and torch"),
        Column("on disk"),
        Column("times as small", "as the teacher"),
        Column("parameters"),
    ]
    rows = tuple(
        Row(model.name, tuple(_cells(model, teacher, batches)), number=part.numbers[model.name]) for model in models
    )
    caption = f"Answering texts, measured side by side on {machine}; median, and lowest to highest of the rounds"
    return Table(caption, "model", tuple(columns), rows)


def _cells(model: ModelResults, teacher: ModelResults | None, batches: Sequence[int]) -> list[Cell]:
    assert model.serving is not None
    cells = []
    for batch in batches:
        speed = text_speed(model, batch)
        cells.append(Cell(MISSING) if speed is None else _seconds(speed.spread))
        cells.append(_times(None if teacher is None else times_faster(model, teacher, batch=batch)))
    smaller = "" if teacher is None else f"{times_smaller(model, teacher):.1f}".replace("nan", "")
    return [
        *cells,
        Cell(written(model.serving.peak_host_bytes, "bytes")),
        Cell(written(model.disk_bytes, "bytes") if model.disk_bytes else MISSING),
        Cell(smaller or MISSING),
        Cell(written(model.parameters, "parameters")),
    ]


def _seconds(spread: Spread) -> Cell:
    return Cell(written(spread.median, "seconds"), interval(spread.low, spread.high, "seconds"))


def _times(ratio: Spread | None) -> Cell:
    if ratio is None:
        return Cell(MISSING)
    return Cell(f"{ratio.median:.1f}", f"{ratio.low:.1f} to {ratio.high:.1f}")
