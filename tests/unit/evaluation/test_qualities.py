from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import finished_run, with_holes

from evaluation.qualities import CLOSENESS, qualities
from evaluation.results import Closeness


def test_tasks_come_first_with_the_metric_that_they_are_judged_by() -> None:
    run = finished_run(prompts=4)
    run = replace(run, tasks=(replace(run.tasks[0], metric="macro_f1"), run.tasks[1]))
    found = qualities(run)
    titles = [(each.title, each.headline) for each in found if each.task == "intents"]
    assert titles[0] == ("intents", True)
    assert titles[1:] == [("intents, accuracy", False), ("intents, mcc", False)]
    assert [each.title for each in found if each.task is None] == [title for title, _ in CLOSENESS.values()]
    assert all(set(each.measured) == {model.name for model in run.models} for each in found)


def test_a_number_is_the_one_of_the_examples() -> None:
    run = finished_run(prompts=4)
    found = next(each for each in qualities(run) if each.title == "intents")
    examples = run.models[0].tasks[0].examples
    right = np.mean([example.predicted == example.gold for example in examples])
    assert found.measured["teacher"].value == pytest.approx(right)


def test_a_model_without_a_measurement_is_left_out_of_it_alone() -> None:
    run = finished_run(prompts=4)
    teacher, untouched, *students = run.models
    run = replace(run, models=(teacher, replace(untouched, closeness=Closeness((), ()), tasks=()), *students))
    assert all("untouched" not in each.measured and "teacher" in each.measured for each in qualities(run))


def test_without_measurements_there_is_nothing() -> None:
    assert qualities(with_holes(finished_run(prompts=2))) == ()
