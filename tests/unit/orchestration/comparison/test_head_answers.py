"""Logits of task heads become answers to a task's examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_files import write_task
from task_heads import save_classifier, save_span_finder, save_tagger

from configs import ModelError
from orchestration.comparison.head_answers import LONGEST_SPAN, answer_by_head, best_span
from orchestration.inputs.tasks import LoadedTask, load_task
from teacher_server.encoder import SpanWindow, TaskHead

CLASSES = {"test": [{"text": "sun sun", "mood": "good"}, {"text": "rain", "mood": "good"}]}
TAGS: dict[str, Any] = {
    "kind": "tagging", "fields": {"tokens": "tokens", "tags": "tags"}, "labels": ["LOC"],
    "template": "{{ tokens | join(' ') }}", "answer": None, "data": {"test": {"path": "test.jsonl"}},
}  # fmt: skip
SPANS: dict[str, Any] = {
    "kind": "extractive_qa", "fields": {"context": "context", "answers": "answers"},
    "labels": None, "template": "{{ context }} Question: {{ question }}", "answer": None, "data": {"test": {"path": "test.jsonl"}},
}  # fmt: skip


def classes(folder: Path, **settings: Any) -> LoadedTask:
    plain = {
        "data": {"test": {"path": "test.jsonl"}},
        "fields": {"label": "mood"},
        "template": "What of {{ text }}?",
        "answer": None,
    }
    return load_task(write_task(folder, rows=CLASSES, **{**plain, **settings}))


def test_the_likeliest_class_is_the_answer(tmp_path: Path) -> None:
    task = classes(tmp_path / "task")
    found = answer_by_head(TaskHead(save_classifier(tmp_path / "model")), task.test, task=task.config)
    assert [each.predicted for each in found] == [("good",), ("bad",)]
    assert [each.gold for each in found] == [("good",), ("good",)]
    assert all(0.5 < each.confidence < 1.0 for each in found)
    assert {each.answer for each in found} == {""}


def test_labels_may_be_called_by_their_words(tmp_path: Path) -> None:
    task = classes(tmp_path / "task")
    head = TaskHead(save_classifier(tmp_path / "model", labels=("SUN", "Rain")))
    assert [each.predicted for each in answer_by_head(head, task.test, task=task.config)] == [("good",), ("bad",)]


@pytest.mark.parametrize("labels", [("good", "LABEL_1"), ("good", "good ")])
def test_a_head_with_other_labels_is_refused(tmp_path: Path, labels: tuple[str, ...]) -> None:
    task = classes(tmp_path / "task")
    head = TaskHead(save_classifier(tmp_path / "model", labels=labels))
    with pytest.raises(
        ModelError, match=r"its head knows the labels good, .*, and task moods has good, bad: make id2label"
    ):
        answer_by_head(head, task.test, task=task.config)


def test_a_head_for_another_kind_of_task_is_refused(tmp_path: Path) -> None:
    task = classes(tmp_path / "task")
    with pytest.raises(ModelError, match="its head does tagging, not classification"):
        answer_by_head(TaskHead(save_tagger(tmp_path / "model")), task.test, task=task.config)


def test_tags_become_spans_of_tokens(tmp_path: Path) -> None:
    rows = {"test": [{"tokens": ["oslo", "sunrain", "rome"], "tags": ["B-LOC", "O", "O"]}]}
    task = load_task(write_task(tmp_path / "task", rows=rows, **TAGS))
    head = TaskHead(save_tagger(tmp_path / "model"))
    (found,) = answer_by_head(head, task.test, task=task.config)
    assert found.predicted == ("0 1 LOC", "2 3 LOC")
    assert found.gold == ("0 1 LOC",)
    strange = TaskHead(save_tagger(tmp_path / "strange", labels=("O", "B-CITY")))
    with pytest.raises(ModelError, match="its head tags CITY, and task moods has LOC"):
        answer_by_head(strange, task.test, task=task.config)
    odd = TaskHead(save_tagger(tmp_path / "odd", labels=("O", "city")))
    with pytest.raises(ModelError, match="a label of its head is not a tag"):
        answer_by_head(odd, task.test, task=task.config)


def test_the_best_span_is_the_answer(tmp_path: Path) -> None:
    rows = {"test": [{"context": "Rain, oslo sun rome rain", "question": "where", "answers": ["oslo sun rome"]}]}
    task = load_task(write_task(tmp_path / "task", rows=rows, **SPANS))
    (found,) = answer_by_head(TaskHead(save_span_finder(tmp_path / "model")), task.test, task=task.config)
    assert found.predicted == ("oslo sun rome",)


def window(start: list[float], end: list[float]) -> SpanWindow:
    places = tuple((10 * at, 10 * at + 9) for at in range(len(start)))
    return SpanWindow(np.array(start, np.float32), np.array(end, np.float32), places)


def test_a_span_does_not_end_before_it_begins() -> None:
    assert best_span([window([0, 0, 5], [3, 0, 1])]) == (20, 29)


def test_a_span_is_not_longer_than_allowed() -> None:
    start, end = [0.0] * 50, [0.0] * 50
    start[0], end[LONGEST_SPAN], end[LONGEST_SPAN - 1] = 5.0, 9.0, 1.0
    assert best_span([window(start, end)]) == (10, 10 * LONGEST_SPAN + 9)
    end[LONGEST_SPAN] = 0.0
    assert best_span([window(start, end)]) == (0, 10 * (LONGEST_SPAN - 1) + 9)


def test_the_best_of_several_windows_counts_and_no_window_has_none() -> None:
    assert best_span([window([1], [1]), window([0, 3], [0, 3])]) == (10, 19)
    assert best_span([]) is None
    assert best_span([window([], [])]) is None
