"""Screened data with a guard: it reads rows as wholes, once, and only those that nothing else leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from screening_builders import WordGuard, find_digits
from task_files import write_task

from configs.screening import ContentConfig
from configs.task_data import TaskDataConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.rows import split_rows
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_rows import screened_data
from orchestration.inputs.screened_tasks import screened_task

GUARD = {"model": {"path": "guard"}, "unsafe": ["unsafe"], "safe": ["safe"]}
ROWS = [{"prompt": "call 555", "answer": "nutmeg"}, {"prompt": "clove"}, {"prompt": "clove", "answer": "nutmeg"}]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{not JSON\n")
    (tmp_path / "blocked.txt").write_text("nowhere")


def screened(root: Path, guard: WordGuard, *, content: dict[str, Any] | None = None, **keys: Any) -> Any:
    data = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    blocks = {
        "content": {"guard": GUARD} | (content or {}),
        "data": data | {"response_field": "answer", "max_prompt_tokens": 32},
    } | keys
    screening = Screening(root / "screened", say=lambda line: None, guard=guard)
    return screened_data(experiment(root, **blocks), screening)


def read(found: Any) -> list[Any]:
    return [row for _, row in split_rows(found.config.data.train, split="train")]


def test_a_row_is_judged_with_its_answer_and_only_if_it_would_stay(tmp_path: Path) -> None:
    guard = WordGuard("nutmeg")
    found = screened(tmp_path, guard, privacy={"prompts": "drop"})
    assert read(found)[:3] == ["it holds what is private (PHONE)", ROWS[1], "the guard finds it"]
    assert guard.read[:2] == [Exchange.of("clove"), Exchange.of("clove", "nutmeg")]
    assert guard.told == ["asked 2", "asked 2", "asked 2", "rest"], "once a split"
    assert found.splits["train"] == Screened(3, {"PHONE": 1}, 1, 2, guarded=1)
    assert found.splits["train"].in_words("rows").endswith("1 are not wanted (1 by what the guard says); 2 left out.")
    assert found.splits["train"].metrics("data.train")["screened/data.train/guarded"] == 1.0
    again = WordGuard("nutmeg")
    assert screened(tmp_path, again, privacy={"prompts": "drop"}).splits == found.splits
    assert again.told == [], "what was screened is not asked again"
    again.digest = "another"
    assert screened(tmp_path, again, privacy={"prompts": "drop"}).splits == found.splits and again.told


def test_what_is_redacted_is_judged_as_it_is_used_and_what_is_counted_stays(tmp_path: Path) -> None:
    guard = WordGuard("nutmeg")
    found = screened(tmp_path, guard, privacy={"prompts": "redact"}, content={"prompts": "count"})
    assert read(found)[:3] == [{"prompt": "call <PHONE_1>", "answer": "nutmeg"}, *ROWS[1:]]
    assert guard.read[0] == Exchange.of("call <PHONE_1>", "nutmeg")
    assert found.splits["train"] == Screened(3, {"PHONE": 1}, 2, 0, guarded=2)
    off = WordGuard("nutmeg")
    content = {"prompts": "off", "blocklist": str(tmp_path / "blocked.txt")}
    screened(tmp_path, off, content=content, privacy={"prompts": "redact"})
    assert off.read == []


def test_rows_of_a_task_and_plain_text_are_judged_too(tmp_path: Path) -> None:
    texts = [{"text": "a joy", "mood": "good"}, {"text": "nutmeg", "mood": "bad"}, {"text": "fine", "mood": "nutmeg"}]
    rows = {"train": texts, "dev": texts[:1], "test": texts[:1]}
    write_task(tmp_path / "task", rows=rows)
    (tmp_path / "plain.jsonl").write_text('{"text": "some nutmeg"}\n')
    plain = {"path": str(tmp_path / "plain.jsonl")}
    config = TaskDistillConfig.model_construct(
        privacy=None,
        content=ContentConfig.model_validate({"guard": GUARD}),
        task=tmp_path / "task/task.yaml",
        data=TaskDataConfig.model_validate({"plain": {"train": plain, "dev": plain}}),
    )
    guard = WordGuard("nutmeg")
    found = screened_task(config, Screening(tmp_path / "screened", say=lambda line: None, guard=guard))
    assert found.splits["train"] == Screened(3, {}, 1, 1, guarded=1)
    assert found.splits["plain.dev"].guarded == 1
    assert Exchange.of("fine") in guard.read and Exchange.of("some nutmeg") in guard.read
