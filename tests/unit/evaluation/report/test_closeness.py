from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from results_builders import finished_run, with_holes

from evaluation.exposure import exposure_of
from evaluation.qualities import CLOSENESS, qualities
from evaluation.report.blocks import Charts, Lines, Paragraph, Table
from evaluation.report.closeness import calibration_section, closeness_section, exposure_section
from evaluation.report.judged import judge
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


def test_of_several_teachers_it_is_said_what_models_are_held_against() -> None:
    run = finished_run(prompts=2)
    said = "Models are held against what students learned from: a mixture."
    floors, titles = [], []
    for each in (run, replace(run, held_against=said)):
        (part,) = parts_of([each])
        found = [judge(quality, part) for quality in qualities(each) if quality.task is None]
        table, floor, _ = closeness_section(part, found).blocks
        assert isinstance(table, Table) and isinstance(floor, Paragraph)
        floors.append(floor.text)
        titles.append([column.title for column in table.columns])
    assert "noise floor" in floors[0] and floors[1].startswith(f"{said} Divergences know")
    assert titles[1] == ["KL(teachers‖·)", "KL(·‖teachers)", *titles[0][2:]]


def test_every_model_has_its_reliability_diagram(part: Part) -> None:
    _, charts = calibration_section(part).blocks
    assert isinstance(charts, Charts)
    assert [chart.caption for chart in charts.charts] == [model.name for model in part.results.models]
    assert "sure and" in charts.charts[0].svg


def exposure_blocks(exposure: Exposure) -> tuple[str, Charts]:
    run = finished_run(prompts=2)
    run = replace(run, models=(replace(run.models[-1], exposure=exposure),))
    lines, _, charts = exposure_section(parts_of([run])[0]).blocks
    assert isinstance(lines, Lines) and isinstance(charts, Charts)
    (line,) = lines.lines
    return line, charts


def answers_of(*each: list[float], times: int = 1) -> list[NDArray[np.float64]]:
    return [np.array(one) * (1 + 0.01 * turn) for turn in range(times) for one in each]


def test_the_excess_stands_in_words_with_its_interval() -> None:
    """Half of the answers are thrice as far off, half of them as far as before: 100 % in all."""
    free, forced = answers_of([2.0, 2.0], [6.0, 6.0], times=10), answers_of([2.0, 2.0], [2.0, 2.0], times=10)
    line, _ = exposure_blocks(exposure_of(free, forced, free))
    found = re.fullmatch(
        r"minillm: 100\.0 % farther from its teacher after its own tokens than after the teacher's "
        r"\(95 %: (\d+\.\d) to (\d+\.\d) %\): 4\.180 nats a token against 2\.090\.", line
    )  # fmt: skip
    assert found is not None, line
    # A mean of 20 that are 0 or 200 % with even chances: 2.09 standard errors of 22.9 % on either side.
    assert (float(found[1]), float(found[2])) == pytest.approx((52.0, 148.0), abs=6)


def test_an_excess_whose_interval_holds_zero_was_not_seen() -> None:
    rng = np.random.default_rng(0)
    free, forced = (answers_of(*rng.random((20, 5)).tolist()) for _ in range(2))
    line, _ = exposure_blocks(exposure_of(free, forced, free))
    assert re.fullmatch(
        r"minillm: no difference seen, \d\.\d % farther from its teacher after its own tokens than after the teacher's "
        r"\(95 %: -\d+\.\d to \d+\.\d %\): 0\.\d+ nats a token against 0\.\d+\.",
        line,
    )


@pytest.mark.parametrize(
    ("exposure", "said"),
    [
        (exposure_of(answers_of([1.0]), answers_of([0.0]), answers_of([0.0])), "undefined, as it does not differ"),
        (exposure_of([], [], []), "there is no answer to read"),
        (
            exposure_of(answers_of([1.0, 1.0]), answers_of([2.0, 2.0]), answers_of([0.0])),
            "50.0 % nearer to its teacher",
        ),
    ],
)
def test_an_excess_without_an_interval(exposure: Exposure, said: str) -> None:
    line, _ = exposure_blocks(exposure)
    assert line.startswith(f"minillm: {said}") and "95 %" not in line and "nan" not in line


def test_the_excess_is_drawn_over_length_and_both_divergences_by_position() -> None:
    free, forced = answers_of([1.0, 3.0], times=8), answers_of([1.0, 1.0], times=8)
    # A position that one answer alone reaches is not drawn.
    free[0] = np.append(free[0], 99.0)
    line, charts = exposure_blocks(exposure_of(free, forced, free))
    excess, by_position = charts.charts
    assert (excess.caption, by_position.caption) == ("Excess over the teacher's tokens", "minillm")
    assert '<desc id="excess-desc">minillm: 100.0 % after 2.</desc>' in excess.svg
    assert "farther from its teacher" in by_position.svg and line.split(":")[0] == "minillm"


def test_what_was_not_measured_is_said() -> None:
    part = parts_of([with_holes(finished_run(prompts=2))])[0]
    first, variety = closeness_section(part, []).blocks
    assert first == Paragraph("Closeness to the teacher was not measured.")
    assert isinstance(variety, Table) and variety.rows[0].cells[-1].text == MISSING
    assert calibration_section(part).blocks == (Paragraph("Calibration was not measured."),)
    assert exposure_section(part).blocks == (Paragraph("Exposure was not measured."),)
