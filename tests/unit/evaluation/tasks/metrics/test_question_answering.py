"""Exact match and F1 as SQuAD defines them, by hand."""

from __future__ import annotations

import pytest
from task_builders import rows_of, values

from evaluation.tasks.metrics.question_answering import normalised


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("The Cat", "cat"),
        ("an  apple, a day.", "apple day"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("theatre", "theatre"),
        ("A", ""),
        ("1990–91", "1990–91"),  # not ASCII: SQuAD keeps it
        ("「东京」。", "东京"),
    ],
)
def test_what_is_compared_of_an_answer(answer: str, compared: str) -> None:
    assert normalised(answer) == compared


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        (["Denver Broncos"], "the Denver Broncos!", 1.0, 1.0),
        (["Denver Broncos"], "Broncos", 0.0, 2 * 1 / 3),
        (["Santa Clara, California", "Levi's Stadium"], "Levis stadium in Santa Clara", 0.0, 2 * 2 / 7),
        (["gold gold gold"], "gold gold", 0.0, 2 * 2 / 5),  # a bag of words, not a set
        (["yes"], "no", 0.0, 0.0),
        (["yes"], "", 0.0, 0.0),
        ([""], "", 1.0, 1.0),  # SQuAD 2.0: no answer
        ([], "", 1.0, 1.0),
        ([""], "something", 0.0, 0.0),
        (["the"], "a", 1.0, 1.0),  # nothing is left of either
        (["the", "cat"], "", 0.0, 0.0),  # of the accepted answers only those count of which something is left
        ([""], None, 0.0, 0.0),
        (["x"], None, 0.0, 0.0),
        (["东京都"], "东京", 0.0, 2 * 2 / 5),
        (["Москва"], "москва", 1.0, 1.0),
    ],
)
def test_one_question(gold: list[str], predicted: str | None, exact: float, f1: float) -> None:
    found = values("extractive_qa", rows_of([(gold, predicted)]))
    assert found == pytest.approx({"f1": f1, "exact_match": exact})


def test_it_is_the_mean_over_questions() -> None:
    found = values("extractive_qa", rows_of([("a b", "a b"), ("c d", "c"), ("e", "x")]))
    # "a b": the article goes, b is left.
    assert found == pytest.approx({"f1": (1 + 2 / 3 + 0) / 3, "exact_match": 1 / 3})
