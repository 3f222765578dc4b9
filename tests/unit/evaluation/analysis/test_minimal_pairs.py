"""Pairs of rows by hand: keywords alone answer both rows alike."""

from __future__ import annotations

from analysis_builders import answer, both

from evaluation.analysis.minimal_pairs import PairsAnswered, pairs_answered

GOLD = ["a", "b", "a", "b", "a", "a"]
PAIRS = ["not", "not", "order", "order", "word", "word"]


def test_both_right_and_any_change() -> None:
    teacher = [answer(row, gold, gold, pair=pair) for row, (gold, pair) in enumerate(zip(GOLD, PAIRS, strict=True))]
    student = [answer(row, gold, "a", pair=pair) for row, (gold, pair) in enumerate(zip(GOLD, PAIRS, strict=True))]
    assert pairs_answered(both(teacher, student)) == PairsAnswered(
        pairs=3, should_change=2, teacher_right=3, student_right=1, teacher_changes=2, student_changes=0
    )


def test_seeds_are_pairs_of_their_own_and_rows_without_a_partner_are_none() -> None:
    rows = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0)]
    examples = [
        answer(row, "a", "a" if seed else "b", seed=seed, pair="p" if row < 2 else "alone") for row, seed in rows
    ]
    found = pairs_answered(both(examples, examples))
    assert found is not None
    assert (found.pairs, found.teacher_right, found.should_change) == (2, 1, 0)


def test_a_task_without_pairs() -> None:
    assert pairs_answered(both([answer(0, "a", "a")], [answer(0, "a", "a")])) is None
