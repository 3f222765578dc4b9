"""Accuracy, macro-F1 and MCC are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from task_builders import answered, measured, rows_of, values

LABELS = ("a", "b", "c", "d")
Pairs = list[tuple[str, str | None]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=30))
def test_they_are_scikit_learns(pairs: Pairs) -> None:
    gold, predicted = [pair[0] for pair in pairs], [pair[1] or "(unread)" for pair in pairs]
    ours = values("classification", rows_of(pairs), labels=LABELS)
    assert ours["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    macro = f1_score(gold, predicted, labels=LABELS, average="macro", zero_division=np.nan)
    assert ours["macro_f1"] == pytest.approx(macro)
    if len(set(gold)) > 1:
        assert ours["mcc"] == pytest.approx(matthews_corrcoef(gold, predicted))
    else:
        assert np.isnan(ours["mcc"])


def test_by_hand() -> None:
    pairs: Pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("c", None), ("c", "c")]
    ours = values("classification", rows_of(pairs), labels=LABELS)
    assert ours["accuracy"] == pytest.approx(4 / 6)
    # a: 2*1/(2+1), b: 2*2/(2+3), c: 2*1/(2+1); d occurs nowhere.
    assert ours["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 2 / 3) / 3)
    # 6 rows, 4 hits; gold 2 2 2, answers 1 3 1 and one unread.
    assert ours["mcc"] == pytest.approx((4 * 6 - (2 + 6 + 2)) / ((36 - 12) * (36 - 12)) ** 0.5)


def test_one_answer_throughout_is_chance() -> None:
    assert values("classification", rows_of([("a", "a"), ("b", "a")]), labels=LABELS)["mcc"] == 0.0


def test_without_rows_nothing_is_defined() -> None:
    assert all(np.isnan(value) for value in values("classification", [], labels=LABELS).values())


def test_many_draws_are_finished_at_once() -> None:
    pairs: Pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("c", None)]
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 1.0]])
    for name, one in measured("classification", rows_of(pairs), labels=LABELS).items():
        drawn = [pair for pair, times in zip(pairs, weights[2], strict=True) for _ in range(int(times))]
        at_once = one.metric.finish(weights @ one.sums)
        assert at_once.shape == (3,)
        assert at_once[0] == pytest.approx(one.value)
        assert at_once[2] == pytest.approx(values("classification", rows_of(drawn), labels=LABELS)[name])


def test_answers_under_several_seeds_are_one_row() -> None:
    examples = [answered("a", "a", row=0, seed=0), answered("a", "b", row=0, seed=1), answered("b", "b", row=1)]
    accuracy = measured("classification", examples, labels=LABELS)["accuracy"]
    assert accuracy.sums.tolist() == [[1.0, 2.0], [1.0, 1.0]]
    assert accuracy.value == pytest.approx(2 / 3)
