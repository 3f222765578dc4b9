"""Classes one by one."""

from __future__ import annotations

from dataclasses import replace

from results_builders import task_facts, task_model

from evaluation.analysis.judging import both_answers
from evaluation.analysis.labels import Confusion, confusions, kept_by_label
from evaluation.results import FinalScores

FACTS = task_facts("intents")


def test_what_is_kept_by_label() -> None:
    # Rows go through the four labels in turn: of the 25 of each, the teacher has the first 23, the student 20 or 21.
    teacher, student = (task_model(name, right=right).tasks[0] for name, right in (("t", 92), ("s", 82)))
    found = kept_by_label(both_answers(teacher, student, FACTS))
    assert {one.name: (one.n, one.teacher, one.student) for one in found} == {
        "complaint": (25, 0.92, 0.8),
        "question": (25, 0.92, 0.8),
        "order": (25, 0.92, 0.84),
        "return": (25, 0.92, 0.84),
    }
    assert [one.name for one in found] == ["complaint", "question", "order", "return"]
    assert found[0].retention == 0.8 / 0.92


def test_what_is_taken_for_what() -> None:
    scores = task_model("s", right=90).tasks[0]
    found = confusions(scores, at_most=3)
    assert found[0] == Confusion("complaint", "question", 3, 25)
    assert [each.count for each in found] == [3, 3, 2]
    unread = FinalScores("intents", "text", tuple(replace(each, predicted=None) for each in scores.examples))
    assert confusions(unread, at_most=3) == ()
