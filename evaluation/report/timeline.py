"""When what ran of a run, and what it waited for."""

from __future__ import annotations

from evaluation.report.blocks import Block, Cell, Chart, Charts, Column, MarkdownOnly, Row, Section, Table
from evaluation.report.charts import Words
from evaluation.report.gantt import CALLED, gantt, lanes_of, shown_lanes, took
from evaluation.report.merging import Part
from evaluation.results import RunResults


def timeline_section(part: Part) -> Section | None:
    """A chart for each run of which spans are known; None where there are none."""
    blocks: list[Block] = []
    for number, (name, run) in enumerate(part.runs.items()):
        if run.timeline:
            blocks += _of(run, "" if len(part.runs) == 1 else f" of {name}", key=f"{part.key}timeline-{number}")
    return Section("timeline", "What ran when", tuple(blocks)) if blocks else None


def _of(run: RunResults, of: str, *, key: str) -> list[Block]:
    spans = run.timeline
    origin: dict[int, float] = {}
    for span in spans:
        origin[span.start] = min(span.began, origin.get(span.start, span.began))
    starts = len(origin)
    whole = sum(max(span.ended for span in spans if span.start == start) - origin[start] for start in origin)
    lanes, left_out = shown_lanes(spans)
    longest = sorted(lanes, key=lambda lane: -lane.seconds)[:3]
    title = f"The run{of}: {took(whole)}" + (f" in {starts} starts" if starts > 1 else "")
    description = f"{title}; the longest: {', '.join(f'{lane.title} {took(lane.seconds)}' for lane in longest)}."
    caption = f"{title}. A thin line leads from what ended to what had waited for it."
    if left_out:
        caption += f" The {left_out} shortest are not shown."
    words = Words(key, title, description, "", "")
    columns = (Column("on", numeric=False), Column("began at"), Column("took"))
    rows = [
        Row(
            span.title,
            (
                Cell(CALLED[span.place], note=f"start {span.start + 1}" if starts > 1 else ""),
                Cell(took(span.began - origin[span.start])),
                Cell(took(span.ended - span.began)),
            ),
        )
        for lane in lanes_of(spans)
        for span in lane.spans
    ]
    table = Table(f"What ran when{of}", "what", columns, tuple(rows))
    return [Charts((Chart(gantt(spans, words), caption),), ()), MarkdownOnly((table,))]
