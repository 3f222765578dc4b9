"""How close the models are to their teacher: all numbers, calibration, exposure to their own words, variety."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.closeness import ReliabilityBin, length_ratio, reliability
from evaluation.diversity import diversity
from evaluation.exposure import excess_curve, excess_error
from evaluation.report.blocks import Block, Cell, Chart, Charts, Column, Lines, Paragraph, Row, Section, Table
from evaluation.report.charts import Series, Words, line_chart, reliability_chart
from evaluation.report.judged import Judged
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.results import Exposure, ModelResults
from evaluation.statistics import estimate

LEAST_ANSWERS = 4
"""A position of the exposure curves that fewer answers reach is left out: its mean is noise."""

NOISE_FLOOR = "The teacher's own row is the noise floor: the live teacher against what the cache keeps of it."


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
                f"{part.results.held_against or NOISE_FLOOR} Divergences know the most likely tokens, and all others "
                "as one."
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
            charts.append(reliability_diagram(part, model, bins))
    if not charts:
        return Section("calibration", "Calibration", (Paragraph("Calibration was not measured."),))
    words = (
        "How often a model's most likely token is the one that the teacher wrote, over the probability that the model "
        "gives it. Above the dotted line it is better than it believes, below it is too sure of itself. Bars: the "
        "share of tokens with that confidence."
    )
    return Section("calibration", "Calibration", (Paragraph(words), Charts(tuple(charts), ())))


def reliability_diagram(part: Part, model: ModelResults, bins: Sequence[ReliabilityBin]) -> Chart:
    """How often a model was right over how sure it was."""
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


def exposure_section(part: Part) -> Section:
    """What a model's own beginnings cost it: in words, over the length of an answer, and by position."""
    read = [(model, model.exposure) for model in part.results.models if model.exposure is not None]
    if not read:
        return Section("exposure", "Exposure", (Paragraph("Exposure was not measured."),))
    words = (
        "How much farther a model is from its teacher after its own tokens than after the teacher's, over the "
        "positions that half of the answers reach. The first chart is this excess over the first positions of an "
        "answer, and grows where mistakes pile up; the others are the divergence at each position, after the teacher's "
        "tokens (dashed) and after the model's own (solid)."
    )
    said = [f"{model.name}: {_excess(exposure)}." for model, exposure in read]
    by_position = (_exposure(part, *each, said=line) for each, line in zip(read, said, strict=True))
    charts = Charts((_excess_curves(part, read), *by_position), tuple((m.name, part.numbers[m.name]) for m, _ in read))
    return Section(
        "exposure", "Exposure", (Lines("What their own beginnings cost", tuple(said)), Paragraph(words), charts)
    )


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


def _excess(exposure: Exposure) -> str:
    """The excess error in words, with its interval and what it is made of."""
    if not exposure.answers:
        return "there is no answer to read"
    measured = excess_error(exposure)
    found = estimate(measured)
    if not math.isfinite(found.value):
        return "undefined, as it does not differ from its teacher after the teacher's tokens"
    free, free_tokens, forced, forced_tokens = measured.sums.sum(axis=0)
    made_of = f"{written(free / free_tokens, 'nats')} nats a token against {written(forced / forced_tokens, 'nats')}"
    nearer = found.value < 0
    low, high = (-found.interval.high, -found.interval.low) if nearer else (found.interval.low, found.interval.high)
    bounds = interval(low, high, "fraction")
    between = f" (95 %: {bounds})" if bounds else ""
    size = written(abs(found.value), "fraction")
    where = f"{'nearer to' if nearer else 'farther from'} its teacher after its own tokens than after the teacher's"
    seen = "no difference seen, " if low <= 0.0 <= high else ""
    return f"{seen}{size} {where}{between}: {made_of}"


def _excess_curves(part: Part, read: Sequence[tuple[ModelResults, Exposure]]) -> Chart:
    series = []
    for model, exposure in read:
        curve = excess_curve(exposure)[: min(_reached(exposure.free_counts), _reached(exposure.forced_counts))]
        series.append(Series(model.name, part.numbers[model.name], range(1, len(curve) + 1), curve))
    told = "; ".join(
        f"{each.label}: {written(each.y[-1], 'fraction')} after {len(each.y)}" for each in series if each.y
    )
    words = Words(
        f"{part.key}excess", "Excess over the teacher's tokens", f"{told}.", "first positions", "", y_unit="fraction"
    )
    return Chart(line_chart(series, words), words.title)


def _exposure(part: Part, model: ModelResults, exposure: Exposure, *, said: str) -> Chart:
    number = part.numbers[model.name]
    free = _means(exposure.free, exposure.free_counts)
    forced = _means(exposure.forced, exposure.forced_counts)
    lines = [
        Series(model.name, number, range(len(free)), free, "-"),
        Series(model.name, number, range(len(forced)), forced, "--"),
    ]
    words = Words(f"{part.key}exposure-{number}", f"Exposure of {model.name}", said, "position", "nats")
    return Chart(line_chart(lines, words), model.name)


def _means(sums: Sequence[float], counts: Sequence[int]) -> list[float]:
    reached = _reached(counts)
    return [total / count for total, count in zip(sums[:reached], counts[:reached], strict=True)]


def _reached(counts: Sequence[int]) -> int:
    """Positions that enough answers reach; fewer and fewer do."""
    return sum(count >= LEAST_ANSWERS for count in counts)
