"""Times a text on a page, with what that is beside the teacher."""

from __future__ import annotations

from dataclasses import replace

from results_builders import task_model, task_run

from evaluation.report.merging import parts_of
from evaluation.report.numbers import MISSING
from evaluation.report.text_serving import text_table
from evaluation.results import ModelResults

TEACHER = task_model("teacher", role="teacher", right=90, text_s=0.02, disk_bytes=1000)
STUDENT = task_model("bag", right=80, text_s=0.002, disk_bytes=100)


def cells(*models: ModelResults) -> dict[str, list[tuple[str, str]]]:
    served = [model for model in models if model.serving is not None]
    table = text_table(parts_of([task_run(*models)])[0], "CPU, 2 threads", served)
    assert "CPU, 2 threads" in table.caption
    titles = [column.title for column in table.columns]
    assert titles == [
        "a text, batch 1", "times as fast", "a text, batch 32", "times as fast", "memory", "on disk", "times as small",
        "parameters",
    ]  # fmt: skip
    return {row.title: [(cell.text, cell.note) for cell in row.cells] for row in table.rows}


def test_times_and_ratios() -> None:
    found = cells(TEACHER, STUDENT)
    assert found["bag"][:4] == [
        ("2.00 ms", "1.80 ms to 2.20 ms"),
        ("10.0", "10.0 to 10.0"),
        ("500 µs", "500 µs to 500 µs"),
        ("10.0", "10.0 to 10.0"),
    ]
    assert found["bag"][4:7] == [("1.00 GB", ""), ("100 B", ""), ("10.0", "")]
    assert found["teacher"][1] == ("1.0", "1.0 to 1.0")


def test_without_a_teacher_there_are_no_ratios() -> None:
    found = cells(STUDENT)
    assert [found["bag"][at][0] for at in (1, 3, 6)] == [MISSING] * 3
    assert cells(replace(TEACHER, serving=None), STUDENT)["bag"][1][0] == MISSING
