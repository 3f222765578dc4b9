"""How the students learned: one chart a metric, all students in it."""

from __future__ import annotations

import math

from evaluation.report.blocks import Block, Chart, Charts, Paragraph, Section
from evaluation.report.charts import Series, Words, line_chart
from evaluation.report.merging import Part

MOST_POINTS = 400
"""Of a curve in a chart; more are not seen, and cost bytes."""

LEFT_OUT = (
    "learning_rate", "tokens", "tokens_per_s", "data_wait_share", "padding_share", "memory_gib", "skipped_steps",
    "grad_norm", "sequences", "staleness", "engine_gap",
)  # fmt: skip
"""Ends of names of curves that say how training went and not what came of it."""


def curves_section(part: Part) -> Section:
    """The training curves of the part's students."""
    series: dict[str, list[Series]] = {}
    for model in part.results.models:
        for metric, points in (model.training.curves if model.training else {}).items():
            if metric.rsplit("/", 1)[-1] in LEFT_OUT or not any(math.isfinite(value) for _, value in points):
                continue
            kept = points[:: max(1, math.ceil(len(points) / MOST_POINTS))]
            number = part.numbers[model.name]
            series.setdefault(metric, []).append(Series(model.name, number, [s for s, _ in kept], [v for _, v in kept]))
    if not series:
        return Section("curves", "Training", (Paragraph("No training curves were kept."),))
    drawn = []
    for index, (metric, lines) in enumerate(sorted(series.items())):
        told = "; ".join(f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
        words = Words(f"{part.key}curve-{index}", metric, f"{metric} over steps: {told}.", "step", "")
        drawn.append(Chart(line_chart(lines, words), metric))
    legend = {line.label: line.number for lines in series.values() for line in lines}
    blocks: tuple[Block, ...] = (Charts(tuple(drawn), tuple(legend.items())),)
    return Section("curves", "Training", blocks)
