"""The card of a task's data counts rows, labels and reasons, and repeats nothing of a row."""

from __future__ import annotations

from pathlib import Path

from task_files import MOODS, write_task

from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_data_card import task_data_card
from orchestration.inputs.tasks import load_task


def card(root: Path, **settings: object) -> str:
    rows = {
        "train": [
            {"text": "a sunny day", "mood": "good"},
            {"text": "a sunny day", "mood": "bad"},
            {"text": "дождь", "mood": "bad"},
            {"text": "private words", "mood": 'it\'s "secret" words'},
            {"text": "more", "mood": "other words"},
            "{broken",
        ],
        "dev": [{"text": "tea", "mood": "good"}],
        "test": [{"text": "pie", "mood": "good"}],
    }
    task = load_task(write_task(root, rows=rows, **settings))
    sets = TaskSets(
        {"train": task.train, "transfer": ()}, ("transfer: 2 rows set aside; the first: row 1: label 'abc",)
    )
    return task_data_card("ours", task, sets, data=task.config.data, said=("data.train: 6 rows",)).replace("\\", "")


def test_rows_labels_and_sets_are_counted(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert text.startswith("# Data of ours\n") and "Task moods, classification." in text
    assert "- Source: train.jsonl" in text
    assert "- Rows: 3, of which 1 say what another one says" in text
    assert "- Words of a row: median 3, " in text
    assert "- Writing systems, by most letters of a row: latin 2, cyrillic 1" in text
    assert "- Labels: bad 2, good 1" in text
    assert "- train: 3 examples, 3 with gold labels" in text and "- transfer: 0 examples, 0 with gold labels" in text
    assert "- data.train: 6 rows" in text


def test_reasons_are_counted_without_what_they_quote(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert "- Set aside: 2 because label ... is not among labels" in text
    assert "- Set aside: 1 because invalid JSON" in text
    for words in ("secret", "other words", "private", "sunny", "abc"):
        assert words not in text


def test_entities_are_counted_by_their_type(tmp_path: Path) -> None:
    rows = [{"tokens": ["Ann", "and", "Bob"], "tags": ["B-PER", "O", "B-PER"]}]
    fields = {"tokens": "tokens", "tags": "tags"}
    path = write_task(
        tmp_path, rows=dict.fromkeys(MOODS["data"], rows), kind="tagging", fields=fields, labels=["PER"],
        template="{{ tokens }}", answer=None,
    )  # fmt: skip
    task = load_task(path)
    assert "- Labels: PER 2" in task_data_card("x", task, TaskSets({}, ()), data=task.config.data, said=())
