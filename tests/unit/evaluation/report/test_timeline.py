"""The section of a run's timeline: a chart on the page, the same as a table in Markdown, nothing where nothing is known."""

from __future__ import annotations

from dataclasses import replace

from results_builders import TIMELINE, finished_run

from evaluation.report.blocks import Charts, MarkdownOnly, Table
from evaluation.report.contents import contents
from evaluation.report.markdown import sections_in_markdown
from evaluation.report.merging import parts_of
from evaluation.report.page import page_of
from evaluation.report.timeline import timeline_section


def test_a_run_has_a_chart_and_in_markdown_a_table() -> None:
    run = finished_run()
    (part,) = parts_of([run])
    section = timeline_section(part)
    assert section is not None and (section.key, section.title) == ("timeline", "What ran when")
    charts, only = section.blocks
    assert isinstance(charts, Charts) and isinstance(only, MarkdownOnly)
    (chart,) = charts.charts
    assert chart.caption.startswith("The run: 7 min 10 s in 2 starts. A thin line")
    (table,) = only.blocks
    assert isinstance(table, Table) and len(table.rows) == len(TIMELINE)
    assert [row.title for row in table.rows][:2] == ["teacher", "teacher"]
    assert "| fill | the teacher's engines \\(start 1\\) | 1 min 01 s | 4 min 29 s |" in sections_in_markdown([section])


def test_a_run_of_which_no_spans_are_known_has_no_section() -> None:
    (part,) = parts_of([replace(finished_run(), timeline=())])
    assert timeline_section(part) is None
    assert "timeline" not in [section.key for section in contents([replace(finished_run(), timeline=())])]


def test_runs_side_by_side_have_a_chart_each_with_ids_of_their_own() -> None:
    runs = [finished_run(), finished_run(experiment="other", seed=1)]
    page = page_of("two", contents(runs))
    assert page.count('class="chart wide"') == 2
    ids = [line.split('"')[0] for line in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
