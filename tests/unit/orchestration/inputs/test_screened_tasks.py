"""A task with screened rows takes the place of the task that is named, and of all else that an experiment reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from screening_builders import WordGuard, find_digits
from task_files import MOODS, write_task

from configs.task_experiment import TaskDistillConfig
from evaluation.tasks.examples import Example
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.real_paths import resolve_task_paths
from orchestration.inputs.rows import split_rows
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_experiment import ScreenedExperiment, Screening
from orchestration.inputs.screened_tasks import screened_task, without_unwanted
from orchestration.inputs.task_sets import load_learned_task
from orchestration.inputs.tasks import load_task

ROWS: dict[str, list[Any]] = {
    "train": [
        {"text": "call 555", "mood": "good"},
        {"text": "nutmeg", "mood": "bad"},
        {"text": "ok", "mood": "bad"},
        {"text": "x", "mood": "?"},
    ],
    "dev": [{"text": "555 again", "mood": "good"}],
    "test": [{"text": "bye 777", "mood": "bad"}],
}
STAGE = {"objective": "hard_labels", "epochs": 1.0}
WRITTEN = {"kind": "continuation", "model": {"hub": "some/lm"}}


@pytest.fixture(autouse=True)
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    write_task(tmp_path / "task", rows=ROWS)
    (tmp_path / "task/task.yaml").write_text(
        json.dumps(MOODS | {"data": MOODS["data"] | {"test": {"path": "test.jsonl", "limit": 1}}})
    )
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "777"}) + "\n")
    (tmp_path / "blocked.txt").write_text("nutmeg")
    (tmp_path / "model").mkdir()


def config(root: Path, **blocks: Any) -> TaskDistillConfig:
    texts = {"path": str(root / "texts.jsonl")}
    values = {
        "name": "moods",
        "task": str(root / "task/task.yaml"),
        "teacher": {"model": {"path": str(root / "model")}},
        "data": {
            "transfer": [texts],
            "augment": {"rules": {"kind": "rules"}, "written": WRITTEN},
        },
        "students": {"bag": {"start": {"kind": "bag"}, "stages": [STAGE]}},
    }
    return resolve_task_paths(TaskDistillConfig.model_validate(values | blocks), config_dir=root)


def screened(root: Path, **blocks: Any) -> ScreenedExperiment[TaskDistillConfig]:
    return screened_task(config(root, **blocks), Screening(root / "screened", say=lambda line: None))


def test_an_experiment_reads_its_task_from_screened_rows(tmp_path: Path) -> None:
    found = screened(tmp_path, privacy={"prompts": "redact"})
    task = load_learned_task(found.config.task)
    assert [example.text for example in task.train] == ["call <PHONE_1>", "nutmeg", "ok"]
    assert [example.text for example in (*task.dev, *task.test)] == ["<PHONE_1> again", "bye <PHONE_2>"]
    assert task.facts.set_aside[0].startswith("train row 3: label '?' is not among labels")
    assert list(split_rows(found.config.data.transfer[0], split="t")) == [(0, {"text": "<PHONE_2>"})]
    written = "".join(path.read_text() for path in (tmp_path / "screened").rglob("*") if path.is_file())
    assert "555" not in written and "777" not in written
    assert found.splits["train"] == Screened(4, {"PHONE": 1}, 0, 0)
    assert list(found.splits) == ["train", "dev", "test", "transfer.0"]


def test_the_task_stays_the_one_that_it_was_but_for_its_rows(tmp_path: Path) -> None:
    before, after = (
        load_task(found) for found in (tmp_path / "task/task.yaml", screened(tmp_path, privacy={}).config.task)
    )
    assert after.facts == before.facts and after.train == before.train
    assert after.config.model_dump(exclude={"data"}) == before.config.model_dump(exclude={"data"})


def test_rows_that_are_left_out_are_named_with_the_reason(tmp_path: Path) -> None:
    blocks = {"privacy": {"prompts": "drop"}, "content": {"blocklist": str(tmp_path / "blocked.txt")}}
    found = screened(tmp_path, **blocks)
    assert load_task(tmp_path / "task/task.yaml").facts.train_rows == 3
    rows = {"train": ROWS["train"], "dev": [{"text": "ok", "mood": "good"}], "test": [{"text": "ok", "mood": "good"}]}
    write_task(tmp_path / "task", rows=rows)
    task = load_task(screened(tmp_path, **blocks).config.task)
    assert [example.row for example in task.train] == [2]
    assert task.facts.set_aside[:2] == (
        "train row 0: it holds what is private (PHONE)",
        "train row 1: it holds a phrase of the blocklist",
    )
    assert found.splits["train"].dropped == 2


def test_without_a_block_nothing_is_read(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert screened_task(plain, Screening(tmp_path / "screened", print)) == ScreenedExperiment(plain, {})
    assert not (tmp_path / "screened").exists()


def test_texts_that_a_model_wrote_are_looked_through_as_answers(tmp_path: Path) -> None:
    (example, *_) = load_task(tmp_path / "task/task.yaml").train

    def of(*texts: str) -> tuple[Example, ...]:
        return tuple(replace(example, row=row, text=text) for row, text in enumerate(texts))

    sets = TaskSets({name: of("call 555", "fine") for name in ("train", "rules", "written")}, ("said",))
    left, found = without_unwanted(sets, config(tmp_path, privacy={"prompts": "off", "answers": "drop"}))
    assert {name: len(each) for name, each in left.sets.items()} == {"train": 2, "rules": 2, "written": 1}
    assert found == {"written": Screened(2, {"PHONE": 1}, 0, 1)} and left.notes == sets.notes
    counted, found = without_unwanted(sets, config(tmp_path, privacy={}))
    assert counted == sets and found["written"].dropped == 0
    assert without_unwanted(sets, config(tmp_path)) == (sets, {})
    guarded = {"guard": {"model": {"path": str(tmp_path)}, "unsafe": ["unsafe"], "safe": ["safe"]}, "prompts": "off"}
    guard = WordGuard("fine")
    left, found = without_unwanted(sets, config(tmp_path, content=guarded), guard=guard)
    assert [each.text for each in left.sets["written"]] == ["call 555"] and guard.told == ["asked 2", "rest"]
    assert found == {"written": Screened(2, {}, 1, 1, guarded=1)}
