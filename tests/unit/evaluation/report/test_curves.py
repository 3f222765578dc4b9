from __future__ import annotations

import math
from dataclasses import replace

from results_builders import finished_run, with_holes

from evaluation.report.blocks import Charts, Paragraph
from evaluation.report.curves import MOST_POINTS, curves_section
from evaluation.report.merging import parts_of
from evaluation.results import ModelResults


def with_curve(model: ModelResults, values: list[float]) -> ModelResults:
    assert model.training is not None
    return replace(model, training=replace(model.training, curves={"train/loss": tuple(enumerate(values))}))


def test_one_chart_a_metric_with_all_students() -> None:
    (block,) = curves_section(parts_of([finished_run()])[0]).blocks
    assert isinstance(block, Charts)
    assert [chart.caption for chart in block.charts] == ["dev/forward_kl", "train/loss"]
    assert block.legend == (("seqkd", 2), ("kd", 3), ("minillm", 4))
    assert all(f"var(--series-{number})" in block.charts[0].svg for number in (2, 3, 4))


def test_a_long_curve_is_thinned() -> None:
    run = finished_run()
    student = with_curve(run.models[-1], [1.0 / (1 + step) for step in range(50_000)])
    (block,) = curves_section(parts_of([replace(run, models=(student,))])[0]).blocks
    assert isinstance(block, Charts)
    assert len(block.charts[0].svg) < 100 * MOST_POINTS


def test_a_curve_without_a_number_is_none() -> None:
    run = finished_run()
    student = with_curve(run.models[-1], [math.nan, math.inf])
    assert curves_section(parts_of([replace(run, models=(student,))])[0]).blocks == (
        Paragraph("No training curves were kept."),
    )


def test_without_curves_it_says_so() -> None:
    (block,) = curves_section(parts_of([with_holes(finished_run())])[0]).blocks
    assert isinstance(block, Paragraph)
