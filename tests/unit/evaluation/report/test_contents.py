from __future__ import annotations

from dataclasses import replace

import pytest
from results_builders import finished_run, task_model, task_run, with_holes

from evaluation.report.blocks import Paragraph
from evaluation.report.contents import contents, title_of
from evaluation.report.markdown import markdown_of


def test_the_sections_in_their_order() -> None:
    found = [section.key for section in contents([with_holes(finished_run(prompts=2))])]
    assert found == [
        "verdict", "tasks", "analysis", "closeness", "calibration", "exposure", "samples", "curves", "cost", "timeline",
        "shipping", "settings", "provenance", "failures", "limits",
    ]  # fmt: skip


def test_runs_that_cannot_be_compared_have_sections_of_their_own() -> None:
    one = with_holes(finished_run(experiment="one", prompts=2))
    other = replace(one, experiment="other", prompts=("else", "where"))
    keys = [section.key for section in contents([one, other])]
    assert len(keys) == len(set(keys))
    assert [key for key in keys if key.endswith("verdict")] == ["part1-verdict", "part2-verdict"]
    assert keys.count("limits") == 1


def test_what_models_are_held_against_stands_below_the_first_table() -> None:
    run = replace(finished_run(prompts=2), held_against="Models are held against a mixture.")
    first = contents([run])[0]
    assert Paragraph(run.held_against) in first.blocks
    assert "nats from its teachers" in markdown_of("a title", [first])
    assert not any(block == Paragraph("") for block in contents([finished_run(prompts=2)])[0].blocks)


def test_a_report_needs_a_run() -> None:
    with pytest.raises(ValueError, match="needs a run"):
        contents([])


def test_the_title_names_every_experiment_once() -> None:
    one = finished_run(experiment="one", prompts=1)
    assert title_of([one, one, replace(one, experiment="two")]) == "one, two"


def test_an_experiment_that_distils_a_task_has_its_own_sections() -> None:
    run = task_run(task_model("teacher", role="teacher", right=90, text_s=0.02), task_model("bag", right=88))
    sections = {section.key: section for section in contents([run])}
    assert list(sections) == [
        "verdict", "tasks", "analysis", "labels", "calibration", "curves", "cost", "shipping", "settings", "provenance",
        "failures", "limits",
    ]  # fmt: skip
    page = markdown_of(title_of([run]), contents([run]))
    assert "**Ship bag: it keeps 98 % " in page
    assert "| the majority class | 30.0 % |" in page.replace("\\", "")
    for absent in ("perplexity", "Exposure", "a token", "test prompts", "Closeness"):
        assert absent not in page, absent
    bare = replace(run, models=tuple(replace(model, tasks=(), dev=(), serving=None) for model in run.models))
    assert "labels" not in {section.key for section in contents([bare])}
