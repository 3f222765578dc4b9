"""Student / teacher, in all and by thirds, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis_builders import answer, both
from metric_builders import KL, hits

from evaluation.analysis.retention import Slice, by_class_frequency, by_length, retention
from evaluation.metric import Measured


def test_a_ratio_with_the_interval_of_a_ratio() -> None:
    random = np.random.default_rng(0)
    teacher = random.random(400) < 0.8
    student = teacher & (random.random(400) < 0.9)
    found = retention(hits(teacher), hits(student))
    kept = student.sum() / teacher.sum()
    # A student who is right only where the teacher is: a binomial share of the teacher's hits.
    spread = 1.96 * math.sqrt(kept * (1 - kept) / teacher.sum())
    assert (found.metric, found.value) == ("accuracy", pytest.approx(kept))
    assert (found.interval.low, found.interval.high) == pytest.approx((kept - spread, kept + spread), abs=0.006)


def test_of_nothing_nothing_is_kept() -> None:
    assert math.isnan(retention(hits([0] * 10), hits([0, 1] * 5)).value)
    below = retention(Measured(KL, -np.ones((5, 2)) * [1, -1]), Measured(KL, np.ones((5, 2))))
    assert math.isnan(below.value) and below.interval.method == "none"


def test_rare_and_frequent_classes() -> None:
    answers = both(
        [answer(0, "a", "a"), answer(1, "a", "a"), answer(2, "b", "b"), answer(3, "c", "c"), answer(4, "c", "a")],
        [answer(0, "a", "a"), answer(1, "a", "b"), answer(2, "b", "b"), answer(3, "c", "c"), answer(4, "c", "c")],
    )
    rare, middling, frequent = by_class_frequency(answers, {"a": 2, "b": 10, "c": 50})
    assert rare == Slice("rare (2 in train)", 2, teacher=1.0, student=0.5)
    assert (rare.retention, middling.retention, frequent.retention) == (0.5, 1.0, 2.0)
    assert frequent.name == "frequent (50 in train)"


def test_a_class_that_train_lacks_is_rare() -> None:
    answers = both([answer(0, "c", "c")], [answer(0, "c", "a")])
    assert by_class_frequency(answers, {"a": 2, "b": 10}) == (Slice("rare (0 in train)", 1, 1.0, 0.0),)


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ((4, 9, 9), "rare frequent frequent"),
        ((4, 4, 9), "rare rare frequent"),
        ((4, 9, 9, 9, 9), "rare middling middling"),
    ],
)
def test_equal_counts_fall_into_one_third(counts: tuple[int, ...], names: str) -> None:
    answers = both(
        [answer(row, gold, gold) for row, gold in enumerate("abc")],
        [answer(row, gold, gold) for row, gold in enumerate("abc")],
    )
    found = by_class_frequency(answers, dict(zip("abcde", counts, strict=False)))
    assert [one.name.split()[0] for one in found for _ in range(one.n)] == names.split()


def test_equal_classes_have_no_thirds() -> None:
    answers = both([answer(0, "a", "a")], [answer(0, "a", "a")])
    assert by_class_frequency(answers, {"a": 5, "b": 5}) == ()
    assert by_class_frequency(answers, {}) == ()


def test_short_and_long_prompts() -> None:
    lengths = [1, 2, 3, 10, 11, 12, 100, 200, 300]
    answers = both(
        [answer(row, "a", "a", tokens=tokens) for row, tokens in enumerate(lengths)],
        [answer(row, "a", "a" if row < 4 else "b", tokens=tokens) for row, tokens in enumerate(lengths)],
    )
    found = by_length(answers)
    assert [one.name for one in found] == [
        "short (1 to 3 tokens)",
        "middling (10 to 12 tokens)",
        "long (100 to 300 tokens)",
    ]
    assert [one.retention for one in found] == [1.0, pytest.approx(1 / 3), 0.0]
    assert by_length(answers[:1]) == ()


def test_a_slice_of_one_length_names_it_once() -> None:
    said = [answer(row, "a", "a", tokens=tokens) for row, tokens in enumerate([9, 37, 37, 37, 80])]
    names = [one.name for one in by_length(both(said, said))]
    assert names == ["short (9 tokens)", "middling (37 tokens)", "long (80 tokens)"]


def test_a_slice_in_which_the_teacher_scores_nothing() -> None:
    assert math.isnan(Slice("rare", 3, 0.0, 0.5).retention)
