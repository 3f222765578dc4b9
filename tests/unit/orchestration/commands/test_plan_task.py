"""The plan of experiments that distil a task; nothing is started, downloaded or left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from screening_builders import find_digits
from task_files import write_task
from task_heads import save_tagger
from task_plan_builders import (
    ASKED,
    EXAMPLES,
    EXPERIMENT,
    ROWS,
    STAGE,
    TRAINED,
    planned,
    row,
    set_machine,
    write_experiment,
)

from configs import ConfigError, ModelError
from orchestration.plan import hardware


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_machine(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def test_sets_requests_and_students_are_shown(folder: Path) -> None:
    text = planned(folder)
    assert text.startswith("Task moods: classification, judged by accuracy on test.")
    assert row(text, "train", table=EXAMPLES) == ["train", "2", "2"]
    assert row(text, "transfer", table=EXAMPLES) == ["transfer", "2", "0"]
    assert "transfer: 1 texts left out that stand there twice, or among gold, dev or test examples." in text
    assert row(text, "train", table=ASKED) == ["train", "2", "0", "2", "0", "2", "4"]
    assert row(text, "transfer", table=ASKED) == ["transfer", "2", "1", "2", "0", "2", "4"]
    assert row(text, "dev", table=ASKED) == ["dev", "1", "0", "1", "0", "1", "2"]
    assert "10 teacher tokens" in text
    assert "1 of 5 texts are longer than teacher.max_tokens=3 and are cut" in text
    bag = ["bag", "bag, teacher embeddings", "0", "logit_mse", "train + transfer", "4", "4", "0.0001"]
    assert row(text, "bag", table=TRAINED) == bag
    assert row(text, "two", table=TRAINED)[:3] == ["two", "1 layers of the teacher", "0"]
    assert "hard_labels" in text and "two is trained 2 times, with other seeds." in text
    assert "the same on gold labels alone: bag, two." in text


def test_changed_texts_are_made_by_rules_and_announced_where_a_model_writes_them(folder: Path) -> None:
    made = {
        "rules": {"kind": "rules", "same_part": 0.0, "mask": 0.0, "ngram": 1.0, "copies": 3},
        "words": {"kind": "masked_lm", "model": {"hub": "some/bert"}, "copies": 4, "of": ["train", "transfer"]},
    }
    stage = {**STAGE, "data": ["train", "rules", "words"]}
    text = planned(
        folder,
        data={**EXPERIMENT["data"], "augment": made},
        students={"bag": {"start": {"kind": "bag"}, "stages": [stage]}},
    )
    assert "rules: " in text and "dropped as copies or as empty." in text
    assert "words: at most 16 texts, which some/bert writes when the experiment runs" in text
    assert row(text, "bag", table=TRAINED)[5].endswith(" and more")


def test_what_cannot_work_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"name a model with a head for it, or let stages of teacher\.prepare"):
        save_tagger(folder / "tagger")
        planned(folder, teacher={"model": {"path": "tagger"}})
    with pytest.raises(ConfigError, match=r"data\.transfer\.0\.path: gone\.jsonl: found neither"):
        planned(folder, data={"transfer": [{"path": "gone.jsonl"}]})
    with pytest.raises(ModelError, match="package no_such_package is not installed"):
        planned(folder, teacher={"model": {"package": "no_such_package", "file": "model"}})
    task = {"test": {"path": "test.jsonl"}, "train": {"path": "train.jsonl"}}
    write_task(folder / "task", rows=ROWS, data=task)
    with pytest.raises(ConfigError, match=r"task moods has no dev rows, and students .* set data\.dev in"):
        planned(folder)


def test_a_held_out_text_among_gold_is_left_out_and_said(folder: Path) -> None:
    write_task(folder / "task", rows=ROWS | {"dev": ROWS["train"][:1]})
    said = planned(folder)
    assert "train: 1 texts left out that are read as others of dev or test are" in said


def test_what_every_part_holds_is_printed_and_what_has_no_room_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = planned(folder)
    for words in ("placement on CPUs: 1 node(s), 2 CPUs each", "training worker, bag", "memory of a machine, fill"):
        assert words in printed
    monkeypatch.setattr(hardware, "read_host_memory", lambda: hardware.HostMemory(total_gib=2.0, free_gib=1.0))
    with pytest.raises(ConfigError, match=r"fill needs .* GiB of memory on one machine but 1.9 of its 2.0 GiB are"):
        planned(folder)


def test_what_is_found_in_the_data_is_said_and_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    with (folder / "task/train.jsonl").open("a") as file:
        file.write('{"text": "rain 555", "mood": "bad"}\n')
    text = planned(folder, privacy={"prompts": "drop"})
    assert "data.train: 3 rows looked at: 1 PHONE; 1 left out." in text
    assert row(text, "train", table=EXAMPLES) == ["train", "2", "2"]
