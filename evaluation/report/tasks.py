"""The tasks: what every model scores by every metric, beside what a constant answer scores, and contamination."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.blocks import Block, Cell, Column, Paragraph, Row, Section, Table
from evaluation.report.judged import Judged
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.results import FinalScores, ModelResults, TaskFacts
from evaluation.tasks.measuring import entities_not_in_the_row, notes_under, parse_failures


def tasks_section(part: Part, judged: Sequence[Judged]) -> Section:
    """A table a task."""
    if not part.results.tasks:
        return Section("tasks", "Tasks", (Paragraph("No task was run."),))
    blocks: list[Block] = []
    for facts in part.results.tasks:
        shown = [each for each in judged if each.quality.task == facts.name]
        blocks += [_table(part, facts, shown), *_notes(part, facts, shown), Paragraph(_facts(facts))]
    return Section("tasks", "Tasks", tuple(blocks))


def _table(part: Part, facts: TaskFacts, judged: Sequence[Judged]) -> Table:
    rows = []
    for model in part.results.models:
        scores = _scores(model, facts)
        cells = [_cell(each, model.name) for each in judged]
        cells.append(Cell(MISSING) if scores is None else _unread(scores))
        rows.append(Row(model.name, tuple(cells), note=_how(model, scores), number=part.numbers[model.name]))
    columns = [
        Column(each.quality.metric.name.replace("_", " "), "judged by" if each.quality.headline else "")
        for each in judged
    ]
    return Table(
        f"{facts.name}: {facts.kind.replace('_', ' ')}, {facts.test_rows} test rows, 95 % intervals",
        "model",
        (*columns, Column("not readable", "answers")),
        tuple(rows),
    )


def _cell(judged: Judged, name: str) -> Cell:
    found = judged.estimates.get(name)
    if found is None:
        return Cell(MISSING)
    unit = judged.quality.metric.unit
    return Cell(written(found.value, unit), interval(found.interval.low, found.interval.high, unit), judged.marks(name))


def _unread(scores: FinalScores) -> Cell:
    failures = parse_failures(scores.examples)
    return Cell(f"{failures}", f"of {len(scores.examples)}")


def _notes(part: Part, facts: TaskFacts, judged: Sequence[Judged]) -> list[Paragraph]:
    answers = {model.name: scores.examples for model in part.results.models if (scores := _scores(model, facts))}
    tagging = facts.kind == "tagging"
    nowhere = {name: entities_not_in_the_row(each) for name, each in answers.items()} if tagging else {}
    signatures = {each.quality.metric.name: each.quality.metric.signature for each in judged}
    return [Paragraph(note) for note in notes_under(nowhere=nowhere, signatures=signatures)]


def _scores(model: ModelResults, facts: TaskFacts) -> FinalScores | None:
    return next((scores for scores in model.tasks if scores.task == facts.name), None)


def _how(model: ModelResults, scores: FinalScores | None) -> str:
    return "" if scores is None else f"by {scores.answered_by}"


def _facts(facts: TaskFacts) -> str:
    """What the numbers have to be read against."""
    metric = facts.metric.replace("_", " ")
    sentences = [f"The best constant answer scores {written(facts.baseline, facts.unit)} ({metric})."]
    if facts.train_rows:
        sentences.append(
            f"Contamination: of {facts.test_rows} test rows {facts.exact_copies} also stand in the {facts.train_rows} "
            f"train rows to the letter, {facts.near_copies} nearly (similarity {facts.near_duplicate:g} or more)."
        )
    else:
        sentences.append("There are no train rows that the test rows could stand in.")
    if facts.few_shot:
        sentences.append(f"{facts.few_shot} worked examples from train stand before each question.")
    if facts.train_label_counts:
        counts = ", ".join(f"{label} {count}" for label, count in facts.train_label_counts.items())
        sentences.append(f"Labels in train: {counts}.")
    if facts.set_aside:
        rows = "row was" if len(facts.set_aside) == 1 else "rows were"
        sentences.append(f"{len(facts.set_aside)} {rows} set aside.")
    return " ".join(sentences)
