"""The two-by-two table of hits and misses, by hand."""

from __future__ import annotations

import math

from analysis_builders import answer, both

from evaluation.analysis.agreement import HitTable, hits_and_misses

TEACHER = ["a", "a", "a", "b", "b", "b", "c", None]
STUDENT = ["a", "a", "b", "a", "b", "b", "b", None]


def test_by_hand() -> None:
    table = hits_and_misses(
        both(
            [answer(row, "a", said) for row, said in enumerate(TEACHER)],
            [answer(row, "a", said) for row, said in enumerate(STUDENT)],
        )
    )
    assert table == HitTable(both=2, teacher_only=1, student_only=1, neither=4, same_mistake=2)
    assert (table.n, table.mistakes_shared) == (8, 4 / 5)


def test_shares_of_nothing_are_undefined() -> None:
    table = hits_and_misses(both([answer(0, "a", "a")], [answer(0, "a", "a")]))
    assert math.isnan(table.mistakes_shared)
    assert hits_and_misses(()).n == 0
