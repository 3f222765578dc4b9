"""Of an experiment that distils a task: classes one by one, and whether the models know how sure they may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.analysis.calibration import calibration, reliability_of_answers
from evaluation.analysis.judging import both_answers
from evaluation.analysis.labels import confusions, kept_by_label
from evaluation.report.blocks import Block, Cell, Charts, Column, Folded, Paragraph, Row, Section, Table
from evaluation.report.closeness import reliability_diagram
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.results import FinalScores, ModelResults, TaskFacts
from evaluation.statistics import Resampling, estimate

LABELS_SHOWN = 8
"""Labels of a table that is seen at once: those at which students fall furthest behind; the others are folded away."""

CONFUSIONS_SHOWN = 5
"""Pairs of classes that are shown of each model."""


def labels_section(part: Part) -> Section | None:
    """What is kept by label and what is taken for what; None where no task has classes."""
    blocks: list[Block] = []
    for facts in part.results.tasks:
        answered = _answered(part, facts)
        if facts.kind == "classification" and answered:
            blocks += [*_kept(part, facts, answered), *_confused(part, facts, answered)]
    return Section("labels", "Label by label", tuple(blocks)) if blocks else None


def confidence_section(part: Part, how: Resampling) -> Section | None:
    """Calibration of the answers of every model; None where no confidence is known."""
    blocks: list[Block] = []
    for facts in part.results.tasks:
        rows, charts = [], []
        for model, scores in _answered(part, facts):
            measured = calibration(scores, facts)
            if measured is None:
                continue
            found = [estimate(each, how) for each in measured]
            cells = [
                Cell(written(one.value, "fraction"), interval(one.interval.low, one.interval.high, "fraction"))
                for one in found
            ]
            sure = [one.confidence for one in scores.examples if math.isfinite(one.confidence)]
            cells.append(Cell(written(sum(sure) / len(sure), "fraction")))
            rows.append(Row(model.name, tuple(cells), number=part.numbers[model.name]))
            charts.append(reliability_diagram(part, model, reliability_of_answers(scores, facts)))
        if rows:
            columns = (
                Column("calibration error", "lower is better"),
                Column("Brier score", "lower is better"),
                Column("confidence", "mean"),
            )
            blocks += [
                Table(f"{facts.name}: how sure models are of their answers", "model", columns, tuple(rows)),
                Charts(tuple(charts), ()),
            ]
    if not blocks:
        return None
    words = (
        "How often an answer is right as a whole, over the probability that the model gives it. Above the dotted line "
        "a model is better than it believes, below it is too sure of itself. Bars: the share of answers with that "
        "confidence."
    )
    return Section("calibration", "Calibration", (Paragraph(words), *blocks))


def _answered(part: Part, facts: TaskFacts) -> list[tuple[ModelResults, FinalScores]]:
    return [
        (model, scores)
        for model in part.results.models
        for scores in model.tasks
        if scores.task == facts.name and scores.examples
    ]


def _kept(part: Part, facts: TaskFacts, answered: Sequence[tuple[ModelResults, FinalScores]]) -> list[Block]:
    """A row a label, a column a student, the worst label of any student first."""
    teacher = next((scores for model, scores in answered if model.role == "teacher"), None)
    students = [(model, scores) for model, scores in answered if model.role == "student"]
    if teacher is None or not students:
        return []
    found = {
        model.name: {one.name: one for one in kept_by_label(both_answers(teacher, scores, facts))}
        for model, scores in students
    }
    behind: dict[str, float] = {}
    for slices in found.values():
        for label, each in slices.items():
            behind[label] = min(behind.get(label, math.inf), each.student - each.teacher)
    rows = []
    for label in sorted(behind, key=lambda label: (behind[label], label)):
        cells = []
        for model, _ in students:
            one = found[model.name].get(label)
            kept = MISSING if one is None else "undefined" if one.teacher == 0 else written(one.retention, "fraction")
            note = "" if one is None else f"{one.student:.2f} of {one.teacher:.2f}, n = {one.n}"
            cells.append(Cell(kept, note))
        rows.append(Row(label, tuple(cells)))
    columns = tuple(Column(model.name) for model, _ in students)
    caption = f"{facts.name}: what is kept of the teacher's hits, by label"
    blocks: list[Block] = [Table(caption, "label", columns, tuple(rows[:LABELS_SHOWN]))]
    if rows[LABELS_SHOWN:]:
        others = Table(f"{caption} (continued)", "label", columns, tuple(rows[LABELS_SHOWN:]))
        blocks.append(Folded(f"{len(rows) - LABELS_SHOWN} more labels", (others,)))
    return blocks


def _confused(part: Part, facts: TaskFacts, answered: Sequence[tuple[ModelResults, FinalScores]]) -> list[Block]:
    """The worst pairs of classes of every model."""
    rows = []
    for model, scores in answered:
        for pair in confusions(scores, at_most=CONFUSIONS_SHOWN):
            cells = (Cell(pair.gold), Cell(pair.said), Cell(f"{pair.count}", f"of {pair.n}"))
            rows.append(Row(model.name, cells, number=part.numbers[model.name]))
    if not rows:
        return [Paragraph(f"{facts.name}: no model took a class for another.")]
    columns = (Column("right", numeric=False), Column("answered", numeric=False), Column("answers"))
    table = Table(f"{facts.name}: which classes are taken for another most often", "model", columns, tuple(rows))
    return [Folded(f"{facts.name}: which classes are taken for another", (table,))]
