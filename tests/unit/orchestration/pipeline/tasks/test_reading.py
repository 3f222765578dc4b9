"""What a task experiment reads: rows that are missing, private or forgotten, and what is said of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from screening_builders import find_digits
from task_pipeline_builders import STAGE, spoken_place, task_place

from cache.erasures import Erasures, held_name
from configs import ConfigError
from orchestration.comparison.text_speed import Timed
from orchestration.inputs.tasks import load_task
from orchestration.pipeline.tasks import comparing
from orchestration.pipeline.tasks.comparison import compare_task_models
from student_train.feed.examples import ExampleSet


def test_a_task_without_dev_rows_cannot_choose(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    task = (tmp_path / "moods.yaml").read_text().replace('"dev": {"path": "dev.jsonl"}, ', "")
    (tmp_path / "moods.yaml").write_text(task)
    with pytest.raises(ConfigError, match="task moods has no dev rows"):
        place.go("fill")


def test_nothing_private_is_asked_learned_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    untimed = partial(compare_task_models, timed=lambda models, texts, log: Timed({}, dict.fromkeys(models, "no time")))
    monkeypatch.setattr(comparing, "compare_task_models", untimed)
    place = task_place(tmp_path, privacy={"prompts": "redact"}, content={"blocklist": "words.txt"})
    (tmp_path / "words.txt").write_text("oslo sun")
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "rain 555777", "label": "bad"}) + "\n")
    ended = place.go("eval")
    # Seven train texts, two to transfer on of which a third is not wanted, two of dev.
    assert place.called[:2] == ["check 2", "fill 11"]
    assert "data.train: 7 rows looked at: 1 PHONE." in place.said
    assert "data.transfer.0: 3 rows looked at: nothing private; 1 are not wanted; 1 left out." in place.said
    assert ended.report is not None
    assert "data.train: 7 rows looked at: 1 PHONE." in ended.report.results.notes
    assert {"screened/data.train/found/PHONE": 1.0}.items() <= dict(
        each for _, values in place.tracker.of("final") for each in values.items()
    ).items()
    card = (place.run.directory / "data-card.md").read_text().replace("\\", "")
    assert "Source: train.jsonl" in card and "- data.train: 7 rows looked at: 1 PHONE." in card
    kept = (path for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert not any(b"555777" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("answers", ["head", "labels"])
def test_rows_that_were_forgotten_are_learned_from_gold_neither(answers: str, tmp_path: Path) -> None:
    stage = {"objective": "hard_labels", "data": ["train"]}
    place = task_place(tmp_path) if answers == "head" else spoken_place(tmp_path, answers="labels", stage=stage)
    place.values["students"]["bag"]["stages"] = [STAGE | stage]
    task = load_task(tmp_path / "moods.yaml")
    teaching = place.teaching(place.run, place.journal, place.workers)
    seen: Any = FirstTokens()
    assert teaching.forgotten(task, task.train, seen) == [False] * 6
    Erasures().add([held_name(seen.read[1])], root=tmp_path / "cache")
    place.go("train")
    (job,) = place.workers.jobs
    assert len(ExampleSet.load(job.train_examples)) == 5
    assert "1 rows of the data were forgotten and are left out" in " ".join(place.said.split())


class FirstTokens:
    """Notes what is looked up, and holds nothing."""

    def __init__(self) -> None:
        self.read: list[Any] = []

    def hold(self, token_ids: Any, *, prompt_len: int) -> bool:
        self.read.append(token_ids)
        return False
