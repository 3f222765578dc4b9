from __future__ import annotations

from pathlib import Path

import pytest
from set_builders import ROWS, doubled, place, texts, write

from configs import ConfigError
from configs.task_data import TaskDataConfig
from configs.teachers import TeacherRoute
from orchestration.inputs.task_sets import load_task_sets
from orchestration.inputs.tasks import load_task

__all__ = ["place"]


def test_rows_are_routed_to_teachers_with_those_that_are_made_of_them(place: Path) -> None:
    for split, rows in ROWS.items():
        write(
            place / "task" / f"{split}.jsonl",
            [{**row, "from": {"town": 1 if row["mood"] == "good" else 2}} for row in rows],
        )
    write(place / "transfer.jsonl", [{"text": "cake", "from": {"town": 2}}])
    data = TaskDataConfig.model_validate(
        {"transfer": [{"path": "transfer.jsonl"}], "augment": {"rules": {"kind": "rules", "copies": 1}}}
    )
    task = load_task(place / "task/moods.yaml")
    route = TeacherRoute(kind="route", field="from.town", to={"1": "teacher", "2": "large"})
    sets = load_task_sets(task, data, folder=place / "task", config_dir=place, change=doubled, route=route)
    first, large = sets.of_teacher("teacher"), sets.of_teacher("large")
    assert texts(first, "train", "rules") == [f"sunny {at}" for at in range(6)] + [
        f"sunny {at} sunny {at}" for at in range(6)
    ]
    assert texts(large, "transfer") == ["cake"] and len(large.sets["train"]) == 4 and first.sets["transfer"] == ()
    assert sets.part_of("teacher", task.dev) == task.dev and sets.part_of("large", task.test) == ()
    lost = route.model_copy(update={"to": {"1": "teacher", "3": "large"}})
    with pytest.raises(ConfigError, match=r"no teacher for from.town='2', which row 6 of train has; it knows 1, 3"):
        load_task_sets(task, data, folder=place / "task", config_dir=place, change=doubled, route=lost)
