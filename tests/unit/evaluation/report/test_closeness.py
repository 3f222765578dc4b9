from __future__ import annotations

from dataclasses import replace

import pytest
from results_builders import finished_run, with_holes

from evaluation.report.blocks import Charts, Paragraph, Table
from evaluation.report.closeness import calibration_section, closeness_section, exposure_section
from evaluation.report.judged import judge
from evaluation.report.measures import CLOSENESS, qualities
from evaluation.report.merging import Part, parts_of
from evaluation.report.numbers import MISSING
from evaluation.results import Exposure


@pytest.fixture(scope="module")
def part() -> Part:
    return parts_of([finished_run(prompts=8)])[0]


def test_all_numbers_of_closeness_stand_in_a_table(part: Part) -> None:
    found = [judge(quality, part) for quality in qualities(part.results) if quality.task is None]
    table, floor, variety = closeness_section(part, found).blocks
    assert isinstance(table, Table) and isinstance(floor, Paragraph) and isinstance(variety, Table)
    assert [column.title for column in table.columns] == [title for title, _ in CLOSENESS.values()]
    assert MISSING not in str(table) and "nan" not in str(table)
    assert [row.title for row in variety.rows] == [model.name for model in part.results.models]
    assert variety.rows[0].cells[-1].text == "1.00"


def test_every_model_has_its_reliability_diagram(part: Part) -> None:
    _, charts = calibration_section(part).blocks
    assert isinstance(charts, Charts)
    assert [chart.caption for chart in charts.charts] == [model.name for model in part.results.models]
    assert "sure and" in charts.charts[0].svg


def test_exposure_is_drawn_after_own_and_after_the_teachers_tokens() -> None:
    run = finished_run(prompts=2)
    exposure = Exposure((2.0, 6.0, 9.0), (4, 4, 3), (2.0, 2.0, 9.0), (4, 4, 3), (1.0,) * 4, (3,) * 4)
    run = replace(run, models=(replace(run.models[-1], exposure=exposure),))
    _, charts = exposure_section(parts_of([run])[0]).blocks
    assert isinstance(charts, Charts)
    (chart,) = charts.charts
    assert chart.caption == "minillm: 1.545 nats after its own tokens, 1.182 after the teacher's"


def test_what_was_not_measured_is_said() -> None:
    part = parts_of([with_holes(finished_run(prompts=2))])[0]
    first, variety = closeness_section(part, []).blocks
    assert first == Paragraph("Closeness to the teacher was not measured.")
    assert isinstance(variety, Table) and variety.rows[0].cells[-1].text == MISSING
    assert calibration_section(part).blocks == (Paragraph("Calibration was not measured."),)
    assert exposure_section(part).blocks == (Paragraph("Exposure was not measured."),)
