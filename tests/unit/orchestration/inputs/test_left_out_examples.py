from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from set_builders import TEXTS, TRAIN, load, place, texts, write

from cache.erasures import FORGOTTEN
from configs import DataError
from configs.task_teacher import TaskTeacherConfig
from evaluation.tasks.examples import Example
from orchestration.inputs.left_out_examples import apart_from_held_out, as_read_by, without_forgotten
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.tasks import load_task

__all__ = ["place"]


def read_first_word(examples: Sequence[Example]) -> list[str]:
    """As a model that reads one word of a text."""
    return [example.text.split()[0] for example in examples]


def test_texts_that_a_model_reads_as_held_out_ones_are_left_out_and_counted(place: Path) -> None:
    write(place / "task/train.jsonl", [*TRAIN, {"text": "fog over hills", "mood": "bad"}])
    write(place / "task/dev.jsonl", [{"text": "fog at sea", "mood": "bad"}])
    write(place / "task/test.jsonl", [{"text": "tea time", "mood": "good"}, {"text": TRAIN[0]["text"], "mood": "good"}])
    task = load_task(place / "task/moods.yaml")
    sets = load(place, **TEXTS)
    apart = apart_from_held_out(sets, task, read=read_first_word)
    # Gold may stand in test, as public data do, and not in dev, by which students are chosen.
    assert texts(apart, "train") == [row["text"] for row in TRAIN]
    assert texts(apart, "transfer") == ["cake", "pie"]
    assert apart.notes[len(sets.notes) :] == (
        "train: 1 texts left out that are read as others of dev or test are",
        "transfer: 1 texts left out that are read as others of dev or test are",
    )
    with pytest.raises(DataError, match="train: every text is read as one of dev or test is: name others"):
        apart_from_held_out(sets, replace(task, dev=task.train), read=read_first_word)


def test_a_head_reads_as_far_as_it_is_told_and_a_language_model_whole_questions(place: Path) -> None:
    task = load_task(place / "task/moods.yaml")
    tokenizer = byte_tokenizer()
    first, other = (
        replace(task.dev[0], text=text, parts=(text,), question=text) for text in ("fog at sea", "fog over")
    )

    def same(answers: str) -> bool:
        model: Any = {"path": "m"}
        teacher = TaskTeacherConfig.model_validate({"model": model, "answers": answers, "max_tokens": 4})
        one, two = as_read_by(teacher, tokenizer, task=task.config)([first, other])
        return one == two

    assert same("head") and not same("text") and not same("labels")


def test_what_was_forgotten_is_left_out_of_splits_and_sets_and_their_facts(place: Path) -> None:
    task, sets = load_task(place / "task/moods.yaml"), load(place, **TEXTS)

    def forgotten(examples: Sequence[Example]) -> list[bool]:
        return [example.text in ("sunny 1", "tea") for example in examples]

    left, kept = without_forgotten(task, sets, is_forgotten=forgotten)
    assert "sunny 1" not in texts(kept, "train") and texts(kept, "transfer") == ["cake"]
    assert [example.row for example in left.train] == [0, *range(2, 10)]
    assert left.facts.train_rows == 9 and left.facts.digest != task.facts.digest
    assert left.facts.set_aside[-1] == f"train row 1: {FORGOTTEN}"
    assert kept.notes[-1] == "2 rows of the data were forgotten and are left out: remove them from the data as well"
    assert without_forgotten(task, sets, is_forgotten=lambda examples: [False] * len(examples)) == (task, sets)
    with pytest.raises(DataError, match=r"dev: every row was forgotten \(distill cache forget\): name other data"):
        without_forgotten(task, sets, is_forgotten=lambda examples: [example.text == "jam" for example in examples])
