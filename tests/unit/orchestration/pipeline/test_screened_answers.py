"""Answers that hold what is private or not wanted are not learned; of the test split they are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import FakeRun, fake_run, go

from cache.views import CacheView


def answers(run: FakeRun) -> dict[str, str]:
    """What the teacher wrote, by set."""
    teacher = run.teacher()
    asked = run.asked(teacher, run.prompts(teacher))
    found = {}
    for part in asked.sets:
        keys = [key for key in asked.cache.lookup(part.requests) if key is not None]
        texts = [
            str(teacher.files.tokenizer.decode(each.response_ids.tolist(), skip_special_tokens=True))
            for each in asked.cache.get_many(keys, k=0)
            if each is not None
        ]
        found |= {f"{part.name} {at}": text for at, text in enumerate(texts)}
    return found


def blocked_run(root: Path, word: str, **content: Any) -> FakeRun:
    (root / "blocked.txt").write_text(word)
    return fake_run(root, content={"blocklist": str(root / "blocked.txt"), "prompts": "off", **content})


@pytest.fixture
def said(tmp_path: Path) -> dict[str, str]:
    run = fake_run(tmp_path)
    go(run, until="fill")
    return answers(run)


def test_an_answer_is_left_out_of_views_and_its_row_set_aside(tmp_path: Path, said: dict[str, str]) -> None:
    own = said["teacher-train 0"].split()[0]
    run = blocked_run(tmp_path, own)
    go(run, until="fill")
    held = sum(own in text.split() for name, text in said.items() if name.startswith("teacher-train"))
    view = CacheView.load(run.settings.directory / "views" / "teacher-train.npz")
    assert len(view) == 3 - held
    rows = [json.loads(line) for line in (run.settings.directory / "rejected.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} <= {"train", "dev"} and len(rows) >= held > 0
    assert rows[0]["reason"] == "its answer is not learned: it holds a phrase of the blocklist"
    assert "teacher-train: 3 answers looked at: nothing private; " in run.said
    assert "or their answers are not learned, see" in run.said
    told = {name: value for _, values in run.tracker.of("final") for name, value in values.items()}
    assert told["screened/teacher-train/dropped"] == held


def test_answers_that_are_counted_stay(tmp_path: Path, said: dict[str, str]) -> None:
    run = blocked_run(tmp_path, said["teacher-test 0"].split()[0], answers="count")
    go(run, until="fill")
    assert len(CacheView.load(run.settings.directory / "views" / "teacher-train.npz")) == 3
    assert "teacher-test: 2 answers looked at: nothing private; " in run.said
