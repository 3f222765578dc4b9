"""Every kind has its metrics, a floor, and words for what it cannot say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import task_facts
from task_builders import answered, measured, rows_of

from configs.task import METRICS, TaskKind
from evaluation.tasks.measuring import (
    baseline,
    entities_not_in_the_row,
    measure,
    measure_one,
    notes_under,
    parse_failures,
    undefined_because,
)

GOLD: dict[TaskKind, tuple[str, ...]] = {
    "classification": ("a",),
    "tagging": ("0 1 PER",),
    "extractive_qa": ("Paris",),
    "generation": ("The cat sat on the mat",),
    "exact_match": ("42",),
}
LABELS: dict[TaskKind, tuple[str, ...]] = {"classification": ("a", "b"), "tagging": ("PER", "LOC")}


@pytest.mark.parametrize("kind", METRICS)
def test_a_kind_is_measured_by_all_that_it_can_be_judged_by(kind: TaskKind) -> None:
    found = measure(kind, rows_of([(GOLD[kind], GOLD[kind])]), labels=LABELS.get(kind, ()))
    assert [one.metric.name for one in found][: len(METRICS[kind])] == list(METRICS[kind])
    for one in found:
        if undefined_because(one) is None:
            assert one.value == pytest.approx(100.0 if one.metric.unit == "points" else 1.0)


@pytest.mark.parametrize("kind", METRICS)
def test_what_has_no_value_says_why_for_every_metric(kind: TaskKind) -> None:
    for one in measure(kind, [], labels=LABELS.get(kind, ())):
        assert undefined_because(one) == "no row was answered"


def test_what_is_undefined_is_never_zero() -> None:
    one_class = measured("classification", rows_of([("a", "b"), ("a", "a")]), labels=("a", "b"))
    assert undefined_because(one_class["mcc"]) == "all rows have the same label"
    no_entity = measured("tagging", rows_of([((), ())]), labels=("PER",))
    assert {name: undefined_because(one) for name, one in no_entity.items()} == {
        "entity_f1": "no entity in the rows, none in the answers",
        "entity_f1_partial": "no entity in the rows, none in the answers",
        "entity_precision": "no entity in the answers",
        "entity_recall": "no entity in the rows",
        "entity_f1[PER]": "no entity in the rows, none in the answers",
    }
    empty = measured("generation", rows_of([("", "")]))
    assert undefined_because(empty["bleu"]) == "no word in the answers, none in the references"
    assert undefined_because(empty["chrf"]) == "no letter in the answers, none in the references"


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ValueError, match="kind=poetry: tasks are classification, tagging"):
        measure("poetry", [])


def test_failures_are_counted_over_all_answers() -> None:
    examples = [answered("a", None), answered("a", None, seed=1), answered("a", "b", row=1)]
    assert parse_failures(examples) == 2
    assert entities_not_in_the_row(rows_of([((), ["0 1 PER", "-1 -1 PER"]), ((), None)])) == 1


def test_one_metric_is_the_one_that_the_task_is_judged_by_or_the_named_one() -> None:
    facts = replace(task_facts("t"), labels=("a", "b"), metric="macro_f1")
    rows = rows_of([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
    assert (measure_one(facts, rows).metric.name, measure_one(facts, rows).value) == ("macro_f1", (2 / 3 + 4 / 5) / 2)
    assert measure_one(facts, rows, metric="accuracy").value == 0.75


def test_what_stands_under_a_table_where_there_is_anything_to_say() -> None:
    assert notes_under(nowhere={"kd": 0}, signatures={"accuracy": ""}) == ()
    rouge, bleu = "rouge-score 0.1.2", "nrefs:1|tok:13a"
    notes = notes_under(
        nowhere={"teacher": 0, "kd": 3, "untouched": 12},
        signatures={"rouge_l": rouge, "bleu": bleu, "rouge_1": rouge, "accuracy": ""},
    )
    assert notes == (
        "Entities that answers name and that do not stand in the row, which count as wrong: kd 3, untouched 12.",
        "How rouge l, rouge 1 is computed: rouge-score 0.1.2.",
        "How bleu is computed: nrefs:1|tok:13a.",
    )


def test_the_floor_is_the_most_frequent_answer_of_train() -> None:
    test = rows_of([("a", None), ("b", None), ("b", None), ("c", None)])
    assert baseline("classification", "accuracy", test, labels=("a", "b", "c")) == 0.5
    train = [("a",), ("a",), ("b",)]
    assert baseline("classification", "accuracy", test, train_gold=train, labels=("a", "b", "c")) == 0.25
    assert baseline("classification", "mcc", test, labels=("a", "b", "c")) == 0.0


def test_the_floor_of_the_other_kinds() -> None:
    assert baseline("tagging", "entity_f1", rows_of([(["0 1 PER"], None)]), labels=("PER",)) == 0.0
    assert np.isnan(baseline("tagging", "entity_f1", rows_of([((), None)]), labels=("PER",)))
    numbers = rows_of([("2", None), ("1", None), ("2.0", None), ("3", None)])
    assert baseline("exact_match", "exact_match", numbers, train_gold=[("2",), ("2",), ("1",)]) == 0.5
    assert baseline("extractive_qa", "f1", rows_of([(["x", "y z"], None), (["x"], None)])) == 1.0
    assert baseline("generation", "rouge_l", rows_of([("one two", None), ("one three", None)])) == pytest.approx(75.0)
    assert np.isnan(baseline("exact_match", "exact_match", []))
