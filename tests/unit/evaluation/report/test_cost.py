from __future__ import annotations

from dataclasses import replace

from results_builders import MACHINE, finished_run, with_holes

from evaluation.report.blocks import Lines, Table
from evaluation.report.cost import cost_section, machines
from evaluation.report.merging import parts_of
from evaluation.report.numbers import MISSING
from evaluation.results import RunResults


def tables(run: RunResults) -> list[Table]:
    return [block for block in cost_section(parts_of([run])[0]).blocks if isinstance(block, Table)]


def row_of(table: Table, title: str) -> list[str]:
    return next([cell.text for cell in row.cells] for row in table.rows if row.title == title)


def test_two_machines_never_share_a_table() -> None:
    run = finished_run()
    teacher, *others = run.models
    assert teacher.serving is not None
    elsewhere = replace(teacher, serving=replace(teacher.serving, measured_on="gpu, H100"))
    moved = replace(run, models=(elsewhere, *others))
    serving = [table for table in tables(moved) if table.caption.startswith("Serving")]
    assert [[row.title for row in table.rows] for table in serving] == [[m.name for m in others], ["teacher"]]
    assert MACHINE in serving[0].caption and "gpu, H100" in serving[1].caption
    assert list(machines(parts_of([moved])[0])) == [MACHINE, "gpu, H100"]


def test_every_speed_has_its_spread() -> None:
    serving = tables(finished_run())[0]
    cells = serving.rows[0].cells
    assert cells[0].text == "108 ms" and cells[0].note == "105 ms to 114 ms"
    assert len(cells) == len(serving.columns) == 3 * 3 + 3


def test_a_batch_that_was_not_measured_is_said_so() -> None:
    run = finished_run()
    teacher, *others = run.models
    assert teacher.serving is not None
    less = replace(teacher, serving=replace(teacher.serving, speeds=teacher.serving.speeds[:1]))
    assert row_of(tables(replace(run, models=(less, *others)))[0], "teacher").count(MISSING) == 6


def test_the_teachers_tokens_paid_and_saved() -> None:
    table = next(table for table in tables(finished_run()) if table.caption == "The teacher's tokens")
    assert row_of(table, "paid for") == ["18,400", "3 min 04 s", "see the stages", "0.005 EUR"]
    assert row_of(table, "saved by the cache") == ["126,000", "21 min 00 s", "63.0 kJ", "0.04 EUR"]


def test_stages_sum_to_the_total() -> None:
    stages = tables(finished_run())[-1]
    assert row_of(stages, "together") == ["8 min 17 s", "25.7 kJ", "2.27 g"]
    assert "codecarbon" in stages.caption


def test_what_was_not_measured_is_said_in_words() -> None:
    section = cost_section(parts_of([with_holes(finished_run())])[0])
    assert "nan" not in str([block for block in section.blocks if isinstance(block, Table)]).lower()
    assert any(isinstance(block, Lines) and "teacher" in block.lines for block in section.blocks)
    assert any("energy was not measured" in block.caption for block in section.blocks if isinstance(block, Table))
