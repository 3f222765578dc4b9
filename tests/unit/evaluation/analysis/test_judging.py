"""One answer by itself: its score by kind, what is a hit, and which answers of two models belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from analysis_builders import answer, facts, final

from evaluation.analysis.judging import RULES, both_answers, judged, same_answer
from evaluation.results import TaskExample


def test_a_label_is_right_or_not() -> None:
    scores = final(answer(0, "a", "a"), answer(1, "a", "b"), answer(2, "b", None))
    assert [(one.score, one.hit) for one in judged(scores, facts())] == [(1.0, True), (0.0, False), (0.0, False)]


@pytest.mark.parametrize(
    ("kind", "example", "score", "hit"),
    [
        ("extractive_qa", answer(0, "the red house", "a red car"), 0.5, True),
        ("extractive_qa", answer(0, "the red house", "blue"), 0.0, False),
        ("exact_match", answer(0, "1,200", "1200.0"), 1.0, True),
        ("tagging", replace(answer(0, "0 1 PER", "0 1 PER"), gold=("0 1 PER", "2 3 PER")), 2 / 3, True),
        ("tagging", replace(answer(0, "", ""), gold=(), predicted=()), 1.0, True),
        ("generation", answer(0, "one two three four", "one two five six"), 0.5, True),
        ("generation", answer(0, "one two three four", "one"), 0.4, False),
    ],
)
def test_scores_of_one_answer_by_kind(kind: str, example: TaskExample, score: float, hit: bool) -> None:
    [found] = judged(final(example), facts(kind=kind, labels=("PER",)))
    assert (found.score, found.hit) == (pytest.approx(score), hit)


def test_every_kind_has_a_rule_in_words() -> None:
    assert set(RULES) == {"classification", "tagging", "extractive_qa", "generation", "exact_match"}


def test_answers_belong_together_by_row_and_seed() -> None:
    teacher = final(answer(1, "a", "a"), answer(0, "a", "b"), answer(0, "a", "a", seed=1), answer(7, "a", "a"))
    student = final(answer(0, "a", "a", seed=1), answer(0, "a", "b"), answer(1, "a", "b"), answer(8, "a", "a"))
    found = both_answers(teacher, student, facts())
    assert [(both.teacher.example.row, both.teacher.example.seed) for both in found] == [(0, 0), (0, 1), (1, 0)]
    assert [(both.teacher.hit, both.student.hit) for both in found] == [(False, False), (True, True), (True, False)]
    assert same_answer(found[0].teacher, found[0].student) and not same_answer(found[2].teacher, found[2].student)
