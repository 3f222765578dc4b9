"""The numbers of a row have names in MLflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from belief_builders import random_beliefs
from results_builders import model_results, task_facts, task_model

from evaluation.closeness import closeness_of, measured
from evaluation.exposure import exposure_of
from evaluation.metric import Metric
from evaluation.ratios import ratio_of, ratio_stderr
from evaluation.results import FinalScores, LayerLikeness, TaskExample
from orchestration.comparison.numbers import (
    closeness_numbers,
    exposure_numbers,
    likeness_numbers,
    metrics_of,
    task_metrics_of,
    tokens_per_s,
    tracked_name,
)


def test_metrics_have_their_tracking_names() -> None:
    row = model_results("kd", answers=("Paris is it.", "Paris is not."))
    found = metrics_of(row)
    assert found.keys() == {
        *(
            f"eval/test/{name}"
            for name in (
                "forward_kl", "forward_kl_stderr", "reverse_kl", "top1_agreement", "topk_agreement", "perplexity",
                "brier", "ece", "rouge_l", "length_ratio", "distinct_1", "distinct_2", "self_bleu", "tokens_per_s",
            )
        ),
        "eval/parameters",
    }  # fmt: skip
    assert found["eval/test/tokens_per_s"] == 215.4 and found["eval/parameters"] == 99e6
    assert row.closeness is not None
    kl = measured(row.closeness)["forward_kl"]
    assert found["eval/test/forward_kl"] == kl.value
    assert found["eval/test/forward_kl_stderr"] == ratio_stderr(kl.sums[:, 0], kl.sums[:, 1])


def test_exposure_has_its_numbers() -> None:
    free, forced = ([np.full(4, nats)] * 3 for nats in (0.75, 0.5))
    row = model_results("kd", exposure=exposure_of(free, forced, [np.full(4, 0.25)] * 3))
    assert exposure_numbers(row) == {"exposure": 0.5, "own_reverse_kl": 0.25}
    assert metrics_of(row)["eval/test/exposure"] == 0.5
    assert exposure_numbers(model_results("kd", exposure=None)) == {}


def test_what_was_not_measured_or_is_undefined_has_no_name() -> None:
    nothing = model_results("kd", answers=(), closeness=None, serving=None)
    assert metrics_of(nothing) == {"eval/parameters": 99e6}
    assert (closeness_numbers(nothing), tokens_per_s(nothing)) == ({}, None)
    one = model_results("kd", closeness=closeness_of([random_beliefs(1, rows=3)]))
    assert "forward_kl_stderr" not in closeness_numbers(one), "of one sequence there is none"


def test_the_numbers_of_a_task_have_names_too() -> None:
    row = task_model("bag", right=80, text_s=0.002, parameters=9)
    found = task_metrics_of(row, task_facts("intents"))
    assert found["eval/test/accuracy"] == 0.8 and found["eval/parameters"] == 9.0
    assert (found["eval/text_s_batch_1"], found["eval/text_s_batch_32"]) == (0.002, 0.0005)
    assert task_metrics_of(row, task_facts("moods")).keys() == {
        "eval/text_s_batch_1", "eval/text_s_batch_32", "eval/parameters",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tracked"), [("accuracy", "accuracy"), ("entity_f1[PER]", "entity_f1_PER"), ("f1[A&B]", "f1_A_B")]
)
def test_a_metric_is_tracked_under_a_name_that_mlflow_takes(name: str, tracked: str) -> None:
    assert tracked_name(Metric(name, better="higher", unit="fraction", finish=ratio_of)) == tracked


def test_numbers_by_type_have_names_that_can_be_logged() -> None:
    facts = replace(task_facts("names"), kind="tagging", labels=("LOC",), metric="entity_f1")
    found = (TaskExample(0, 0, "", ("0 1 LOC",), "", ("0 1 LOC",), 0.5, 0),)
    row = task_model("bag", right=1, tasks=(FinalScores("names", "head", found),))
    assert task_metrics_of(row, facts)["eval/test/entity_f1_LOC"] == 1.0


def test_layers_are_tracked_beside_those_that_they_are_matched_with() -> None:
    likeness = LayerLikeness("teacher", 9, tuple((float(row), 10.0 + row, 20.0 + row) for row in range(5)))
    assert likeness.matched == ((0, 0), (1, 2), (2, 4))
    assert likeness_numbers(likeness) == {"cka_layer_0": 0.0, "cka_layer_1": 12.0, "cka_layer_2": 24.0}
    assert likeness_numbers(None) == {}
