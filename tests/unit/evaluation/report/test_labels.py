"""Classes one by one, and confidences, as tables of a page."""

from __future__ import annotations

from dataclasses import replace

from results_builders import task_model, task_run

from evaluation.report.blocks import Charts, Folded, Table
from evaluation.report.labels import LABELS_SHOWN, confidence_section, labels_section
from evaluation.report.merging import Part, parts_of
from evaluation.results import FinalScores, ModelResults
from evaluation.statistics import Resampling

HOW = Resampling(draws=200)
TEACHER = task_model("teacher", role="teacher", right=92)
STUDENT = task_model("bag", right=82)


def part(*models: ModelResults) -> Part:
    return parts_of([task_run(*models)])[0]


def test_labels_at_which_a_student_falls_behind_come_first() -> None:
    section = labels_section(part(TEACHER, STUDENT, task_model("lstm", right=90)))
    assert section is not None
    kept, confused = section.blocks
    assert isinstance(kept, Table) and [column.title for column in kept.columns] == ["bag", "lstm"]
    assert [row.title for row in kept.rows] == ["complaint", "question", "order", "return"]
    cell = kept.rows[0].cells[0]
    assert (cell.text, cell.note) == ("87.0 %", "0.80 of 0.92, n = 25")
    assert isinstance(confused, Folded)
    (table,) = confused.blocks
    assert isinstance(table, Table)
    first = next(row for row in table.rows if row.title == "bag")
    assert [cell.text for cell in first.cells] == ["complaint", "question", "5"] and first.cells[2].note == "of 25"


def test_many_labels_are_folded() -> None:
    def many(model: ModelResults) -> ModelResults:
        examples = tuple(
            replace(each, gold=(f"label {each.row % 20:02}",), predicted=(f"label {each.row % 20:02}",))
            for each in model.tasks[0].examples
        )
        return replace(model, tasks=(FinalScores("intents", "head", examples),))

    run = task_run(many(TEACHER), many(STUDENT))
    run = replace(run, tasks=(replace(run.tasks[0], labels=tuple(f"label {at:02}" for at in range(20))),))
    section = labels_section(parts_of([run])[0])
    assert section is not None
    kept, folded, nothing = section.blocks
    assert isinstance(kept, Table) and len(kept.rows) == LABELS_SHOWN
    assert isinstance(folded, Folded) and folded.title == "12 more labels"
    assert "no model took a class for another" in repr(nothing)


def test_a_class_that_the_teacher_never_hits_has_nothing_to_keep() -> None:
    blind = replace(
        TEACHER,
        tasks=(
            FinalScores("intents", "head", tuple(replace(e, predicted=("order",)) for e in TEACHER.tasks[0].examples)),
        ),
    )
    section = labels_section(part(blind, STUDENT))
    assert section is not None and isinstance(section.blocks[0], Table)
    cells = {row.title: row.cells[0].text for row in section.blocks[0].rows}
    assert cells == {"order": "84.0 %", "return": "undefined", "complaint": "undefined", "question": "undefined"}


def test_without_classes_or_answers_there_is_no_section() -> None:
    run = task_run(TEACHER, STUDENT)
    tagging = replace(run, tasks=(replace(run.tasks[0], kind="extractive_qa"),))
    assert labels_section(parts_of([tagging])[0]) is None
    silent = [replace(model, tasks=()) for model in (TEACHER, STUDENT)]
    assert labels_section(part(*silent)) is None and confidence_section(part(*silent), HOW) is None


def test_confidences_have_numbers_and_a_picture_each() -> None:
    section = confidence_section(part(TEACHER, STUDENT), HOW)
    assert section is not None
    _, table, charts = section.blocks
    assert isinstance(table, Table) and isinstance(charts, Charts) and len(charts.charts) == 2
    bag = table.rows[1]
    # 82 answers at 0.9 that are right, 18 at 0.4 that are wrong.
    assert [cell.text for cell in bag.cells] == ["15.4 %", "3.7 %", "81.0 %"]
    assert " to " in bag.cells[0].note
