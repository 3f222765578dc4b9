"""The shipped tasks: they load, their splits are apart, their classes are even, and their pairs are pairs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs import load_task_file
from orchestration.inputs.tasks import load_task

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "tasks"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
SIZES = {"train": 40, "dev": 30, "test": 60}

everywhere = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def rows(name: str, split: str) -> list[dict[str, Any]]:
    text = (FOLDER / name / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_three_kinds_are_shipped() -> None:
    kinds = {path.stem: load_task_file(path).kind for path in SHIPPED}
    assert kinds == {"notes": "extractive_qa", "past-tense": "exact_match", "reviews": "classification"}


@everywhere
def test_every_row_can_be_used_and_there_are_enough(path: Path) -> None:
    task = load_task(path)
    assert task.config.name == path.stem
    assert task.facts.set_aside == ()
    for split, least in SIZES.items():
        assert least <= len(getattr(task, split)) <= 100, split


@everywhere
def test_no_test_row_stands_in_train_or_dev(path: Path) -> None:
    task = load_task(path)
    assert (task.facts.exact_copies, task.facts.near_copies) == (0, 0)
    for split in (task.train, task.dev):
        assert not {each.question for each in split} & {each.question for each in task.test}


@pytest.mark.parametrize("split", SIZES)
def test_reviews_are_as_often_positive_as_negative(split: str) -> None:
    found = rows("reviews", split)
    assert len(set(Counter(row["label"] for row in found).values())) == 1
    assert len({row["text"] for row in found}) == len(found)


def test_pairs_of_reviews_differ_in_their_label() -> None:
    pairs: dict[str, list[str]] = {}
    for row in rows("reviews", "test"):
        if row["pair"] is not None:
            pairs.setdefault(row["pair"], []).append(row["label"])
    assert len(pairs) == 12
    assert all(sorted(labels) == ["negative", "positive"] for labels in pairs.values())
    assert {name.partition("-")[0] for name in pairs} == {"negation", "order", "keyword"}


@pytest.mark.parametrize("split", SIZES)
def test_answers_of_notes_stand_in_them(split: str) -> None:
    for row in rows("notes", split):
        assert all(answer.lower() in row["context"].lower() for answer in row["answers"]), row["question"]


def test_no_verb_stands_twice() -> None:
    verbs = [row["verb"] for split in SIZES for row in rows("past-tense", split)]
    assert len(set(verbs)) == len(verbs)
