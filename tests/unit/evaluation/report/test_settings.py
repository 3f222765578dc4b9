from __future__ import annotations

from dataclasses import replace

from results_builders import finished_run

from evaluation.report.blocks import Folded, Paragraph, Table
from evaluation.report.settings import UNSET, by_student, differing, settings_section


def rows(table: Table) -> dict[str, list[str]]:
    return {row.title: [cell.text for cell in row.cells] for row in table.rows}


def test_what_differs_between_runs_is_shown_and_the_rest_folded() -> None:
    one = finished_run(experiment="one")
    other = replace(one, experiment="other", settings={**one.settings, "teacher.top_k": "128", "seed": "3"})
    first, *_, last = settings_section([one, other]).blocks
    assert isinstance(first, Table) and isinstance(last, Folded)
    assert rows(first) == {"teacher.top_k": ["64", "128"], "seed": [UNSET, "3"]}
    (everything,) = last.blocks
    assert isinstance(everything, Table) and set(rows(everything)) == {*one.settings, "seed"}


def test_equal_runs_are_said_to_be_equal() -> None:
    one = finished_run()
    assert Paragraph("The runs have the same settings.") in settings_section([one, one]).blocks


def test_what_differs_between_students_is_shown_of_one_run() -> None:
    table, *_ = settings_section([finished_run()]).blocks
    assert isinstance(table, Table)
    assert [column.title for column in table.columns] == ["seqkd", "kd", "minillm"]
    assert "init.layers" not in rows(table)
    assert rows(table)["stages.0.learning_rate"] == ["1e-4", "2e-4", "3e-4"]


def test_the_name_of_a_student_may_hold_dots() -> None:
    assert by_student({"students.v1.2.init.layers": "4", "students.a.seed": "1", "studentsx": "2"}) == {
        "v1.2": {"init.layers": "4"},
        "a": {"seed": "1"},
    }


def test_a_key_that_only_one_has_differs() -> None:
    assert differing({"a": {"x": "1", "y": "2"}, "b": {"x": "1"}}) == ["y"]
