from __future__ import annotations

import re
from dataclasses import replace

import pytest
from results_builders import MACHINE, finished_run, task_model, task_run

from evaluation.qualities import qualities
from evaluation.report.blocks import Charts, Folded, Paragraph
from evaluation.report.judged import Judged, judge
from evaluation.report.merging import Part, parts_of
from evaluation.report.numbers import MISSING
from evaluation.report.overview import comparison_table, pareto_blocks
from evaluation.statistics import Resampling


@pytest.fixture(scope="module")
def part() -> Part:
    return parts_of([finished_run(prompts=8)])[0]


@pytest.fixture(scope="module")
def judged(part: Part) -> list[Judged]:
    return [judge(quality, part) for quality in qualities(part.results) if quality.headline]


def test_the_first_table_has_all_models_their_quality_and_their_cost(part: Part, judged: list[Judged]) -> None:
    table = comparison_table(part, judged, chosen="kd")
    assert [row.title for row in table.rows] == ["teacher", "untouched", "seqkd", "kd", "minillm"]
    assert [row.title for row in table.rows if row.chosen] == ["kd"]
    assert [column.title for column in table.columns] == [
        "intents", "sentiment", "KL(teacher‖·)", "KL(·‖teacher)", "top-1 agreement",
        "time a token", "tokens a second", "energy a token",
    ]  # fmt: skip
    cell = table.rows[3].cells[0]
    assert re.fullmatch(r"\d+\.\d %", cell.text) and re.fullmatch(r"\d+\.\d to \d+\.\d %", cell.note)
    assert {mark.against for mark in cell.marks} <= {"teacher", "start", "seqkd"} and cell.marks
    assert MACHINE in table.caption
    assert table.rows[4].note == "seqkd, minillm; 28.3 M, 113 MB"


def test_a_speed_of_another_machine_is_not_put_into_the_column(part: Part, judged: list[Judged]) -> None:
    teacher, *others = part.results.models
    assert teacher.serving is not None
    moved = replace(teacher, serving=replace(teacher.serving, measured_on="gpu, H100"))
    elsewhere = replace(part, results=replace(part.results, models=(moved, *others)))
    table = comparison_table(elsewhere, judged, chosen=None)
    assert [cell.text for cell in table.rows[0].cells[-3:]] == [MISSING] * 3
    assert MISSING not in [cell.text for cell in table.rows[1].cells[-3:]]


def test_quality_is_drawn_against_size_latency_and_energy(part: Part, judged: list[Judged]) -> None:
    first, folded = pareto_blocks(part, judged)
    assert isinstance(first, Charts) and isinstance(folded, Folded)
    assert [chart.caption.partition(".")[0] for chart in first.charts] == [
        "intents against size on disk", "intents against time a token", "intents against energy a token",
    ]  # fmt: skip
    assert all(name in chart.svg for chart in first.charts for name in ("teacher", "kd", "minillm"))
    assert folded.title == "The same by KL(teacher‖·)"


def test_without_two_models_nothing_is_drawn(part: Part) -> None:
    (block,) = pareto_blocks(part, [])
    assert isinstance(block, Paragraph)


def test_quality_of_a_task_is_drawn_against_size_and_the_time_of_a_text() -> None:
    run = task_run(
        task_model("teacher", role="teacher", right=90, text_s=0.02),
        task_model("bag", right=80),
        task_model("lstm", right=85),
    )
    part = parts_of([run])[0]
    judged = [judge(quality, part) for quality in qualities(run, how=Resampling(draws=200))]
    (charts,) = pareto_blocks(part, judged)
    assert isinstance(charts, Charts)
    titles = [chart.caption.partition(". ")[0] for chart in charts.charts]
    assert titles == [
        "intents against size on disk", "intents against time a text, batch 1", "intents against time a text, batch 32",
    ]  # fmt: skip
    table = comparison_table(part, judged, chosen="lstm")
    assert [column.title for column in table.columns] == ["intents", "time a text", "time a text"]
    last = table.rows[-1]
    assert (last.title, [cell.text for cell in last.cells]) == ("the majority class", ["30.0 %", "none", "none"])
    assert table.caption.endswith("; speed on CPU, 2 threads")
