"""Everything of one task together."""

from __future__ import annotations

import pytest
from analysis_builders import answer, facts, final

from evaluation.analysis.task import GAPS_KEPT, analyse

COUNTS = {"a": 3, "b": 9, "c": 27}


def test_a_student_beside_its_teacher() -> None:
    teacher = final(
        *(answer(row, "abc"[row % 3], "abc"[row % 3], 0.9 - row / 100, tokens=row + 1) for row in range(30))
    )
    student = final(*(answer(row, "abc"[row % 3], "b", 0.5 + row / 100, tokens=row + 1) for row in range(30)))
    found = analyse(facts(counts=COUNTS), teacher=teacher, student=student)
    assert (found.task, found.hit, found.answers) == ("letters", "the label is right", 30)
    assert (found.hits.both, found.hits.teacher_only) == (10, 20)
    assert found.confidence.pearson == pytest.approx(-1.0)
    assert found.retention is not None and found.retention.value == pytest.approx(1 / 3)
    assert [one.retention for one in found.by_class_frequency] == [0.0, 1.0, 0.0]
    assert len(found.by_length) == 3
    assert len(found.gaps) == GAPS_KEPT
    assert found.pairs is None


def test_only_labels_have_a_frequency() -> None:
    one = final(answer(0, "x y", "x"), answer(1, "z", "z"))
    found = analyse(facts(kind="extractive_qa", metric="f1", counts=COUNTS, labels=()), teacher=one, student=one)
    assert found.by_class_frequency == ()
    assert found.retention is not None and found.retention.metric == "f1"


def test_models_that_share_no_row() -> None:
    found = analyse(facts(), teacher=final(answer(0, "a", "a")), student=final(answer(1, "a", "a")))
    assert (found.answers, found.retention, found.gaps) == (0, None, ())
