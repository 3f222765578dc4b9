"""How close the models are to their teacher: all numbers, calibration, exposure to their own words, variety."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.closeness import ReliabilityBin, length_ratio, reliability
from evaluation.diversity import diversity
from evaluation.report.blocks import Block, Cell, Chart, Charts, Column, Paragraph, Row, Section, Table
from evaluation.report.charts import Series, Words, line_chart, reliability_chart
from evaluation.report.judged import Judged
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.results import Exposure, ModelResults

LEAST_ANSWERS = 4
"""A position of the exposure curves that fewer answers reach is left out: its mean is noise."""


def closeness_section(part: Part, judged: Sequence[Judged]) -> Section:
    """Everything about closeness that is not in the first table, and with it what is."""
    shown = [each for each in judged if each.quality.task is None]
    blocks: list[Block] = []
    if shown:
        columns = tuple(Column(each.quality.title, f"{each.quality.metric.better} is better") for each in shown)
        rows = [
            Row(model.name, tuple(_cell(each, model.name) for each in shown), number=part.numbers[model.name])
            for model in part.results.models
        ]
        answers = len(part.results.prompts)
        caption = f"At the teacher's answers to {answers} test prompts; divergences in nats a token, 95 % intervals"
        blocks.append(Table(caption, "model", columns, tuple(rows)))
        blocks.append(
            Paragraph(
                "The teacher's own row is the noise floor: the live teacher against what the cache keeps of it. "
                "Divergences know its most likely tokens, and all others as one."
            )
        )
    else:
        blocks.append(Paragraph("Closeness to the teacher was not measured."))
    blocks.append(_variety(part))
    return Section("closeness", "Closeness", tuple(blocks))


def calibration_section(part: Part) -> Section:
    """A reliability diagram for each model."""
    charts = []
    for model in part.results.models:
        bins = reliability(model.closeness) if model.closeness is not None else ()
        if any(each.count for each in bins):
            charts.append(_reliability(part, model, bins))
    if not charts:
        return Section("calibration", "Calibration", (Paragraph("Calibration was not measured."),))
    words = (
        "How often a model's most likely token is the one that the teacher wrote, over the probability that the model "
        "gives it. Above the dotted line it is better than it believes, below it is too sure of itself. Bars: the "
        "share of tokens with that confidence."
    )
    return Section("calibration", "Calibration", (Paragraph(words), Charts(tuple(charts), ())))


def exposure_section(part: Part) -> Section:
    """What a model's own beginnings cost it, by position."""
    charts = [_exposure(part, model, model.exposure) for model in part.results.models if model.exposure is not None]
    if not charts:
        return Section("exposure", "Exposure", (Paragraph("Exposure was not measured."),))
    words = (
        "Divergence from the teacher at each position of an answer: after the teacher's tokens (dashed) and after the "
        "model's own (solid). What lies between them is what the model's own mistakes cost it."
    )
    return Section("exposure", "Exposure", (Paragraph(words), Charts(tuple(charts), ())))


def _cell(judged: Judged, name: str) -> Cell:
    found = judged.estimates.get(name)
    if found is None:
        return Cell(MISSING)
    unit = judged.quality.metric.unit
    if judged.quality.metric.name == "perplexity":
        # A count of choices, of which the digits behind the point matter.
        return Cell(f"{found.value:.2f}" if math.isfinite(found.value) else MISSING)
    return Cell(written(found.value, unit), interval(found.interval.low, found.interval.high, unit))


def _variety(part: Part) -> Table:
    rows = []
    for model in part.results.models:
        numbers = diversity(model.answers)
        ratio = length_ratio(model.closeness) if model.closeness is not None else math.nan
        cells = (
            Cell(written(numbers.get("distinct_1", math.nan), "fraction")),
            Cell(written(numbers.get("distinct_2", math.nan), "fraction")),
            Cell(written(numbers.get("self_bleu", math.nan), "points")),
            Cell(f"{ratio:.2f}" if math.isfinite(ratio) else MISSING),
        )
        rows.append(Row(model.name, cells, number=part.numbers[model.name]))
    columns = (
        Column("distinct words", "of all words"),
        Column("distinct pairs", "of all pairs of words"),
        Column("self-BLEU", "high: one answer to all"),
        Column("length", "tokens for each of the teacher's"),
    )
    return Table("Variety and length of the answers, to be held against the teacher's", "model", columns, tuple(rows))


def _reliability(part: Part, model: ModelResults, bins: Sequence[ReliabilityBin]) -> Chart:
    number = part.numbers[model.name]
    total = sum(each.count for each in bins)
    line = Series(model.name, number, [(each.low + each.high) / 2 for each in bins], [each.accuracy for each in bins])
    told = ", ".join(
        f"{each.confidence:.2f} sure and {each.accuracy:.2f} right" for each in bins if each.count >= total / 50
    )
    words = Words(
        f"{part.key}reliability-{number}",
        f"Reliability of {model.name}",
        f"{told}.",
        "confidence",
        "right",
        None,
        "fraction",
    )
    return Chart(reliability_chart(line, [each.count / total for each in bins], words), model.name)


def _exposure(part: Part, model: ModelResults, exposure: Exposure) -> Chart:
    number = part.numbers[model.name]
    free = _means(exposure.free, exposure.free_counts)
    forced = _means(exposure.forced, exposure.forced_counts)
    own, told = (_total(exposure.free, exposure.free_counts), _total(exposure.forced, exposure.forced_counts))
    said = f"{written(own, 'nats')} nats after its own tokens, {written(told, 'nats')} after the teacher's"
    lines = [
        Series(model.name, number, range(len(free)), free, "-"),
        Series(model.name, number, range(len(forced)), forced, "--"),
    ]
    words = Words(
        f"{part.key}exposure-{number}", f"Exposure of {model.name}", f"On average {said}.", "position", "nats"
    )
    return Chart(line_chart(lines, words), f"{model.name}: {said}")


def _means(sums: Sequence[float], counts: Sequence[int]) -> list[float]:
    return [total / count if count >= LEAST_ANSWERS else math.nan for total, count in zip(sums, counts, strict=True)]


def _total(sums: Sequence[float], counts: Sequence[int]) -> float:
    return sum(sums) / sum(counts) if sum(counts) else math.nan
