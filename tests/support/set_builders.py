"""A task with unlabelled texts beside its experiment, and the sets that are made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from task_files import MOODS

from configs.task_data import Augmentation, TaskDataConfig
from orchestration.inputs.augment import Changed, Texts
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.rows import Row
from orchestration.inputs.task_sets import load_task_sets
from orchestration.inputs.tasks import load_task

TRAIN = [
    *({"text": f"sunny {at}", "mood": "good"} for at in range(6)),
    *({"text": f"grey {at}", "mood": "bad"} for at in range(4)),
]

ROWS = {"train": TRAIN, "dev": [{"text": "jam", "mood": "good"}], "test": [{"text": "pie", "mood": "good"}]}

TRANSFER = [{"text": "cake"}, {"text": "tea"}, {"text": "Cake "}, {"text": "pie"}, {"text": "sunny 0"}, {"words": "x"}]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture()
def place(tmp_path: Path) -> Path:
    """An experiment beside its unlabelled texts, and a task in a folder of its own."""
    (tmp_path / "task").mkdir()
    for split, rows in ROWS.items():
        write(tmp_path / "task" / f"{split}.jsonl", rows)
    (tmp_path / "task/moods.yaml").write_text(json.dumps(MOODS))
    write(tmp_path / "transfer.jsonl", TRANSFER)
    return tmp_path


def doubled(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
    """Every text with its own words behind it."""
    assert texts == Texts(("text",))
    changed = tuple({**row, "text": f"{row['text']} {row['text']}"} for row in rows)
    copies = tuple((len(rows) + at, at, *[None] * (made.copies - 2)) for at in range(len(rows)))
    return Changed(changed, twice=made.copies, empty=0, copies=copies)


def nothing(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
    return Changed((), twice=4, empty=0, copies=((),) * len(rows))


def load(place: Path, **data: Any) -> TaskSets:
    config = TaskDataConfig.model_validate(data)
    task = load_task(place / "task/moods.yaml")
    return load_task_sets(task, config, folder=place / "task", config_dir=place, change=doubled)


def texts(sets: TaskSets, *names: str) -> list[str]:
    return [example.text for example in sets.of(names)]


TEXTS = {"transfer": [{"path": "transfer.jsonl"}]}

RULES = {"kind": "rules", "of": ["train", "transfer"], "copies": 3}
