"""Which student to ship: the rule reads dev and costs alone, and the sentence says of test what there is to say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from results_builders import finished_run, task_facts, task_model, task_run, text_serving

from evaluation.results import DevScores, ModelResults
from evaluation.shipping import Cost, _below, chosen_on_dev, constant_answer, distils_a_task, ship
from evaluation.statistics import Resampling

HOW = Resampling(draws=2000)
TEACHER = task_model("teacher", role="teacher", right=90, text_s=0.014, disk_bytes=1100, parameters=1100)


def student(name: str, *, right: int, **fields: Any) -> ModelResults:
    return task_model(name, right=right, **({"disk_bytes": 100, "parameters": 100} | fields))


def on_dev(row: ModelResults, *, right: int) -> ModelResults:
    """The same with other answers to dev than to test."""
    return replace(row, dev=task_model(row.name, right=right).dev)


def sentence(*models: ModelResults) -> str:
    return ship(task_run(*models), how=HOW).sentence


def test_it_keeps_enough() -> None:
    shipped = ship(task_run(TEACHER, student("bag", right=87)), how=HOW)
    assert shipped.student is not None and shipped.student.name == "bag"
    found = re.fullmatch(
        r"Ship bag: it keeps 97 % \(95 % CI (\d+) to (\d+)\) of the teacher's accuracy, answers one text 14 x faster "
        r"and is 11 x smaller\.",
        shipped.sentence,
    )
    assert found is not None, shipped.sentence
    # An independent bootstrap: both models on the same rows, drawn again and again.
    random = np.random.default_rng(5)
    teacher, bag = np.arange(100) < 90, np.arange(100) < 87
    rows = random.integers(0, 100, size=(20_000, 100))
    low, high = np.quantile(bag[rows].mean(axis=1) / teacher[rows].mean(axis=1), [0.025, 0.975])
    assert float(found[1]) == pytest.approx(100 * low, abs=1.0)
    assert float(found[2]) == pytest.approx(100 * high, abs=1.0)


def test_none_keeps_enough() -> None:
    shipped = ship(task_run(TEACHER, student("bag", right=66), student("lstm", right=50)), how=HOW)
    assert shipped.student is None
    assert shipped.sentence.startswith(
        "Ship none of these students as they are: the best choice on dev, bag, keeps 73 % (95 % CI "
    )
    # (0.66 - 0.3) / (0.9 - 0.3)
    assert shipped.sentence.endswith("and 60% of its lead over the majority class, and 90% would be enough.")


def test_what_is_not_enough_is_never_rounded_up_to_it() -> None:
    assert _below(0.8967, 0.9) == "89.6%"
    assert _below(0.89, 0.9) == "89%" and _below(0.6, 0.9) == "60%"


def test_gold_labels_alone_do_as_well() -> None:
    shipped = ship(task_run(TEACHER, student("bag", right=87), student("bag-gold", right=86, method="hard_labels")))
    assert shipped.student is not None and shipped.student.name == "bag"
    assert "Gold labels alone (bag-gold) may do as well: no difference seen (n = 100" in shipped.sentence  # fmt: skip


def test_distillation_adds_to_gold_labels() -> None:
    said = sentence(TEACHER, student("bag", right=88), student("bag-gold", right=70, method="hard_labels"))
    assert "Distillation adds +18.0 pp, 95 %: " in said and said.endswith("over gold labels alone (bag-gold).")


def test_distillation_is_held_against_augmentation_alone_too() -> None:
    rows = student("bag", right=88), student("bag-augmented", right=70, method="hard_labels")
    assert sentence(TEACHER, *rows).endswith("over gold labels of augmented texts alone (bag-augmented).")
    better = student("bag", right=86), student("bag-augmented", right=89, method="hard_labels")
    assert "It learned from gold labels of augmented texts alone, and" in sentence(TEACHER, *better)


def test_a_student_of_gold_labels_is_shipped_where_it_is_the_best_of_its_size() -> None:
    rows = student("bag", right=86), student("bag-gold", right=89, method="hard_labels")
    shipped = ship(task_run(TEACHER, *rows), how=HOW)
    assert shipped.student is not None and shipped.student.name == "bag-gold"
    assert shipped.sentence.endswith(
        "It learned from gold labels alone, and no distilled student is seen to be better on dev."
    )


def test_gold_labels_that_do_better_on_test_are_named_and_not_chosen() -> None:
    bag = on_dev(student("bag", right=84), right=90)
    gold = on_dev(student("bag-gold", right=90, method="hard_labels"), right=80)
    shipped = ship(task_run(TEACHER, bag, gold), how=HOW)
    assert shipped.student is not None and shipped.student.name == "bag"
    assert "On test gold labels alone do better: distillation against gold labels alone (bag-gold): worse by" in shipped.sentence  # fmt: skip


def test_the_majority_is_not_beaten() -> None:
    shipped = ship(task_run(TEACHER, student("bag", right=33)), how=HOW)
    assert shipped.student is None
    assert shipped.sentence == (
        "Ship none of these students: the best choice on dev, bag, is not seen to be better on test than the majority "
        "class (33.0 % accuracy against 30.0 %)."
    )


def test_a_teacher_that_is_no_better_than_the_majority_has_nothing_to_keep() -> None:
    weak = task_model("teacher", role="teacher", right=30)
    said = sentence(weak, student("bag", right=60))
    assert said.startswith("Ship none of these students: the teacher is no better than the majority class (30.0 % acc")


def test_without_a_teacher_without_students_and_without_dev() -> None:
    assert sentence(student("bag", right=87)) == "Ship bag: 87.0 % accuracy; there is no teacher to hold it against."
    assert sentence(TEACHER) == "There is no student to ship: none was trained, or none answered."
    assert sentence(TEACHER, replace(student("bag", right=87), dev=())).startswith("No student can be chosen")


def test_what_was_not_measured_is_not_said() -> None:
    said = sentence(TEACHER, student("bag", right=87, serving=None, disk_bytes=0))
    assert said.endswith("of the teacher's accuracy.") and " x " not in said


def test_slower_and_larger_are_said_too() -> None:
    said = sentence(TEACHER, student("bag", right=87, text_s=0.028, disk_bytes=1650))
    assert said.endswith("answers one text 2.0 x slower and is 1.5 x larger.")


def test_several_training_seeds_are_a_mean() -> None:
    rows = [task_model("teacher", role="teacher", right=90, seeds=3), student("bag", right=87, seeds=3)]
    assert "of the teacher's accuracy (mean of 3 training seeds), answers" in sentence(*rows)


def chosen(*students: ModelResults) -> str | None:
    dev = {each.name: each.dev[0] for each in students if each.dev}
    costs = {each.name: Cost(each.parameters, each.serving) for each in students}
    return chosen_on_dev(dev, costs, facts=task_facts("intents"), how=HOW)


def test_the_fastest_of_those_that_are_not_seen_to_be_worse() -> None:
    large = student("large", right=88, text_s=0.010)
    small = student("small", right=86, text_s=0.002)
    tiny = student("tiny", right=40, text_s=0.001)
    assert chosen(large, small, tiny) == "small"
    assert chosen(large, tiny) == "large"


def test_a_useless_one_is_not_chosen_for_its_speed_where_dev_is_too_small_to_tell() -> None:
    """Of 24 rows 19 and 14 right are not seen to differ; 19 are seen to be more than half, 14 are not."""
    facts = replace(task_facts("intents"), baseline=0.5)
    rows = [student("slow", right=75, text_s=0.002), student("fast", right=54, text_s=0.0001)]
    dev = {row.name: replace(row.dev[0], examples=row.dev[0].examples[::4][:24]) for row in rows}
    costs = {row.name: Cost(row.parameters, row.serving) for row in rows}
    assert chosen_on_dev(dev, costs, facts=facts, how=HOW) == "slow"
    useless = {"fast": dev["fast"]}
    assert chosen_on_dev(useless, costs, facts=facts, how=HOW) == "fast", "of it, the sentence says so"


def test_equally_fast_ones_go_by_size_then_by_dev() -> None:
    assert chosen(student("a", right=88, parameters=200), student("b", right=86)) == "b"
    assert chosen(student("a", right=86), student("b", right=88)) == "b"
    assert chosen(student("a", right=88), student("b", right=88)) == "a"


def test_without_common_times_size_decides() -> None:
    fast = student("fast", right=88, text_s=0.001, parameters=300)
    small = student("small", right=87, serving=None)
    assert chosen(fast, small) == "small"
    elsewhere = student("small", right=87, serving=text_serving({1: [0.5] * 3}, measured_on="another machine"))
    assert chosen(fast, elsewhere) == "small"


def test_test_answers_change_no_choice() -> None:
    rows = [TEACHER, on_dev(student("a", right=90), right=60), on_dev(student("b", right=70), right=88)]
    found = ship(task_run(*rows), how=HOW)
    assert "bag" not in found.sentence and "the best choice on dev, b, keeps 78 %" in found.sentence


def test_a_choice_is_not_made_of_scores_that_are_undefined() -> None:
    facts = replace(task_facts("intents"), metric="mcc")
    only = tuple(replace(each, gold=("order",)) for each in student("a", right=50).dev[0].examples)
    assert chosen_on_dev({"a": DevScores("intents", "head", only)}, {"a": Cost(1, None)}, facts=facts, how=HOW) is None


def test_which_runs_distil_a_task() -> None:
    assert distils_a_task(task_run(TEACHER)) and not distils_a_task(finished_run())
    assert constant_answer(task_facts("intents")) == "the majority class"
    assert constant_answer(replace(task_facts("names"), kind="tagging")) == "the best constant answer"


def test_a_floor_that_is_undefined_is_no_floor() -> None:
    run = task_run(TEACHER, student("bag", right=87))
    run = replace(run, tasks=(replace(run.tasks[0], baseline=math.nan),))
    assert ship(run, how=HOW).sentence.startswith("Ship bag: it keeps 97 %")
