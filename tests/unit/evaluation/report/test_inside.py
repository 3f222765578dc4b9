"""How alike models are inside, as tables of a page."""

from __future__ import annotations

import math

from results_builders import task_model, task_run

from evaluation.report.blocks import Paragraph, Table
from evaluation.report.contents import contents
from evaluation.report.inside import inside_section
from evaluation.report.markdown import markdown_of
from evaluation.report.merging import parts_of
from evaluation.results import LayerLikeness

ALIKE = LayerLikeness("teacher", 100, ((0.91, 0.2), (math.nan, 0.31), (-0.004, 0.875)))


def test_a_student_has_a_table_of_its_layers_beside_the_teachers() -> None:
    run = task_run(task_model("teacher", role="teacher", right=92), task_model("bert", right=82, likeness=ALIKE))
    section = inside_section(parts_of([run])[0])
    assert section is not None
    words, table = section.blocks
    assert isinstance(words, Paragraph) and "debiased" in words.text
    assert isinstance(table, Table) and table.caption == "bert beside teacher: CKA of their layers, 100 test texts"
    assert [column.title for column in table.columns] == ["layer 0", "layer 1"]
    assert [row.title for row in table.rows] == ["layer 0", "layer 1", "layer 2"]
    shown = [[cell.text for cell in row.cells] for row in table.rows]
    assert shown == [["0.91", "0.20"], ["undefined", "0.31"], ["0.00", "0.88"]]
    marked = [(at, ours) for at, row in enumerate(table.rows) for ours, cell in enumerate(row.cells) if cell.note]
    assert marked == [(0, 0), (2, 1)]


def test_it_stands_in_a_report_where_something_was_measured() -> None:
    teacher = task_model("teacher", role="teacher", right=92)
    with_it = [task_run(teacher, task_model("bert", right=82, likeness=ALIKE))]
    without = [task_run(teacher, task_model("bert", right=82))]
    assert "inside" in [section.key for section in contents(with_it)]
    assert "inside" not in [section.key for section in contents(without)]
    written = markdown_of("A report", contents(with_it)).replace("\\", "")
    assert "bert beside teacher: CKA of their layers" in written and "| layer 2 | 0.00 | 0.88 (*) |" in written
    assert "CKA" not in markdown_of("A report", contents(without))
