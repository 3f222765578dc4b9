from __future__ import annotations

from dataclasses import replace

from results_builders import finished_run, with_holes

from evaluation.report.blocks import Lines, Paragraph, Section, Table
from evaluation.report.merging import parts_of
from evaluation.report.provenance import failures_section, limits_section, provenance_section


def lines(section: Section) -> list[str]:
    return [line for block in section.blocks if isinstance(block, Lines) for line in block.lines]


def test_where_it_comes_from_beside_each_other() -> None:
    one = finished_run(experiment="one")
    other = replace(one, experiment="other", provenance=replace(one.provenance, teacher_licence=None))
    table, warning = provenance_section([one, other]).blocks
    assert isinstance(table, Table) and isinstance(warning, Paragraph)
    facts = {row.title: [cell.text for cell in row.cells] for row in table.rows}
    assert facts["teacher's licence"] == ["Apache-2.0", "unknown"]
    assert facts["cached answers (test view)"] == ["c3" * 8] * 2
    assert facts["task intents: licence of its data"] == ["CC0-1.0"] * 2
    assert "No licence is known of smollm2-135m" in warning.text


def test_one_unknown_licence_of_several_teachers_is_warned_of() -> None:
    one = finished_run()
    licences = "teacher: mit; large: not stated"
    _, warning = provenance_section([replace(one, provenance=replace(one.provenance, teacher_licence=licences))]).blocks
    assert isinstance(warning, Paragraph) and warning.text.startswith("No licence is known of")


def test_every_teacher_has_its_identity() -> None:
    run = finished_run()
    several = replace(run, models=(*run.models, replace(run.models[0], name="second", digest="b" * 64)))
    table, *_ = provenance_section([several]).blocks
    assert isinstance(table, Table)
    facts = {row.title: row.cells[0].text for row in table.rows}
    assert (facts["teacher's identity"], facts["identity of second"]) == ("a1" * 8, "b" * 16)


def test_a_known_licence_needs_no_warning() -> None:
    assert len(provenance_section([finished_run()]).blocks) == 1


def test_what_failed_names_its_model() -> None:
    section = failures_section(parts_of([finished_run()]))
    assert "untouched: exposure: fewer than 8 answers are long enough" in lines(section)
    assert "test row 7: no label" in lines(section)
    assert any(isinstance(block, Paragraph) and block.text.startswith("3 rows") for block in section.blocks)


def test_when_nothing_failed_it_says_so() -> None:
    run = with_holes(finished_run())
    sound = replace(run, models=tuple(replace(model, failures=()) for model in run.models))
    assert failures_section(parts_of([sound])).blocks == (Paragraph("Nothing."),)


def test_limits_say_when_no_task_was_run() -> None:
    missing = "No task was run: nothing here says whether an answer is right."
    assert missing not in lines(limits_section(parts_of([finished_run()])))
    assert missing in lines(limits_section(parts_of([with_holes(finished_run())])))
