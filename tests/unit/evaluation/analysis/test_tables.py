"""Finished runs side by side: each number on examples that its neighbours answered too, everything else refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from analysis_builders import answer, facts, final
from results_builders import model_results, run_results

from evaluation.analysis.tables import CLOSENESS, PROMPTS, compare_runs
from evaluation.results import FinalScores, RunResults
from evaluation.statistics import Resampling

HOW = Resampling(draws=500)
ROWS = 40


def scores(right: int, *, rows: int = ROWS) -> FinalScores:
    """The first `right` rows are answered rightly."""
    return final(*(answer(row, "a", "a" if row < right else "b", 0.9) for row in range(rows)))


def a_run(**fields: object) -> RunResults:
    models = [
        model_results(name, tasks=(scores(right),), method=method, closeness=None)
        for name, right, method in (
            ("teacher", 36, ""),
            ("untouched", 4, ""),
            ("seqkd", 30, "seqkd"),
            ("kd", 32, "seqkd, kd"),
        )
    ]
    return run_results(*models, tasks=(facts(digest="1" * 64),), **fields)


def test_a_task_with_every_baseline() -> None:
    found = compare_runs({"one": a_run()}, HOW)
    [table] = found.tables
    assert (table.on, table.metric.name) == ("letters", "accuracy")
    assert {name: one.value for name, one in table.estimates.items()} == {
        "teacher": 0.9, "untouched": 0.1, "seqkd": 0.75, "kd": 0.8,
    }  # fmt: skip
    assert [against.baseline for against in table.against] == ["its teacher", "its start", "the simplest method"]
    other, difference = table.against[1].differences["kd"]
    assert (other, difference.verdict, difference.estimate) == ("untouched", "better", pytest.approx(0.7))
    assert table.against[2].differences["kd"][1].verdict == "no difference seen"
    assert list(table.against[2].differences) == ["kd"]
    assert table.against[0].differences["kd"][1].p_holm >= table.against[0].differences["kd"][1].p
    assert [(each.student, each.teacher) for each in found.analyses] == [("seqkd", "teacher"), ("kd", "teacher")]
    assert found.analyses[1].found.hits.teacher_only == 4
    assert found.left_out == ()


def test_the_answers_to_the_prompts_are_compared_by_closeness() -> None:
    found = compare_runs({"one": run_results()}, HOW)
    assert [table.metric.name for table in found.tables] == list(CLOSENESS)
    assert {table.on for table in found.tables} == {PROMPTS}
    assert list(found.tables[0].estimates) == ["teacher", "kd"]


def test_another_task_of_the_same_name_is_left_out_and_the_rest_is_shown() -> None:
    other = replace(a_run(), tasks=(facts(digest="2" * 64), facts(name="more")))
    theirs = tuple(
        replace(model, digest=f"other {model.name}", tasks=(*model.tasks, replace(scores(20), task="more")))
        for model in other.models
    )
    found = compare_runs({"one": a_run(), "two": replace(other, models=theirs)}, HOW)
    assert found.left_out == ("letters: two has another task of this name, or other rows: it is left out",)
    letters, more = found.tables
    assert list(letters.estimates) == ["one: teacher", "one: untouched", "one: seqkd", "one: kd"]
    assert list(more.estimates) == ["two: teacher", "two: untouched", "two: seqkd", "two: kd"]


def test_other_prompts_are_left_out() -> None:
    other = run_results(references=("Rome.", "Five."))
    models = tuple(replace(model, digest=f"other {model.name}") for model in other.models)
    found = compare_runs({"one": run_results(), "two": replace(other, models=models)}, HOW)
    assert found.left_out == (
        "test prompts: two has other prompts or other answers of the teacher than one: it is left out",
    )
    assert list(found.tables[0].estimates) == ["one: teacher", "one: kd"]


def test_only_rows_that_all_models_answered_count() -> None:
    run = a_run()
    short = tuple(replace(model, tasks=(scores(10, rows=12),)) if model.name == "kd" else model for model in run.models)
    found = compare_runs({"one": replace(run, models=short)}, HOW)
    assert found.left_out == ("letters: 12 rows that all models answered count; kd answered fewest",)
    assert {one.n for one in found.tables[0].estimates.values()} == {12}


def test_a_model_that_failed_leaves_the_others_alone() -> None:
    run = a_run()
    failed = tuple(replace(model, tasks=()) if model.name == "seqkd" else model for model in run.models)
    found = compare_runs({"one": replace(run, models=failed)}, HOW)
    assert list(found.tables[0].estimates) == ["teacher", "untouched", "kd"]
    assert [against.baseline for against in found.tables[0].against] == ["its teacher", "its start"]
    assert found.analyses[0].student == "kd"


def test_an_undefined_metric_is_said_and_nothing_else_is_lost() -> None:
    run = replace(a_run(), tasks=(facts(digest="1" * 64, metric="mcc"),))
    found = compare_runs({"one": run}, HOW)
    assert math.isnan(found.tables[0].estimates["kd"].value)
    assert found.tables[0].against[0].differences["kd"][1].verdict == "undefined"
    assert found.analyses[1].found.hits.both == 32
