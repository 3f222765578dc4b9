"""Answers that hold what is private or not wanted are not learned; of the test split they are counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import FakeRun, fake_run, go
from screening_builders import WordGuard

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


GUARD = {"model": {"path": "guard"}, "unsafe": ["unsafe"], "safe": ["safe"]}


@pytest.mark.parametrize("at_once", [False, True])
def test_a_guard_reads_answers_with_their_prompts_when_the_teachers_engines_have_ended(
    tmp_path: Path, said: dict[str, str], at_once: bool
) -> None:
    own = said["teacher-train 0"].split()[0]
    model = fake_run(tmp_path).teacher().files.directory
    run = fake_run(tmp_path, content={"guard": GUARD | {"model": {"path": str(model)}}, "prompts": "off"})
    guard = WordGuard(own, at_once=at_once)
    run.settings = replace(run.settings, guard=guard)
    report = go(run)
    assert report is not None
    held = sum(own in text for name, text in said.items() if name.startswith("teacher-train"))
    view = CacheView.load(run.settings.directory / "views" / "teacher-train.npz")
    assert len(view) == 3 - held < 3
    assert {each.prompt for each in guard.read} >= {"train 0", "dev 1", "test 1"}
    assert guard.told == ["asked 3", "asked 2", "asked 2", "rest"]
    # Where it has anything to read, nobody else is in memory; the teacher begins anew when it is compared.
    called = run.compute.pools[0].called
    compared = next(at for at, what in enumerate(called) if what.startswith("answer"))
    assert ("release" in called[:compared]) is not at_once
    assert f"{held} are not wanted ({held} by what the guard says)" in run.said
    rows = [json.loads(line) for line in (run.settings.directory / "rejected.jsonl").read_text().splitlines()]
    assert rows[0]["reason"] == "its answer is not learned: the guard finds it"
    assert "content.guard.model" in report.rests_on.models
