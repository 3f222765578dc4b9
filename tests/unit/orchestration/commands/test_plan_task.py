"""The plan of experiments that distil a task; nothing is started, downloaded or left behind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import ray
import yaml
from signal_builders import CLASSES
from task_files import tiny_model, write_task
from task_heads import save_classifier, save_tagger

from cache import SignalRecord, SignalRequest, TeacherCache, signal_key
from configs import ConfigError, ModelError, load_experiment
from configs.task_experiment import TaskDistillConfig
from orchestration.commands.plan_task import print_task_plan, tuned_chain
from orchestration.inputs.task_sets import load_task_sets
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.tasks import load_task
from orchestration.outputs.artifacts import Artifacts
from orchestration.plan import hardware

STAGE = {"objective": "logit_mse", "data": ["train", "transfer"], "epochs": 2, "batch_size": 2}
EXPERIMENT: dict[str, Any] = {
    "name": "moods",
    "task": "task/task.yaml",
    "teacher": {"model": {"path": "teacher"}, "max_tokens": 3},
    "data": {"transfer": [{"path": "transfer.jsonl"}]},
    "students": {
        "bag": {"start": {"kind": "bag"}, "stages": [STAGE]},
        "two": {
            "start": {"kind": "transformer", "keep_layers": 1},
            "seeds": 2,
            "stages": [STAGE, {"objective": "hard_labels", "steps": 7}],
        },
    },
}

ROWS = {
    "train": [{"text": "sun oslo", "mood": "good"}, {"text": "rain oslo", "mood": "bad"}],
    "dev": [{"text": "sun rome", "mood": "good"}],
    "test": [{"text": "rain rome", "mood": "bad"}],
}


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, two CPUs, no network, nothing downloaded before."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment with its task, its teacher and three unlabelled texts, one of which is a test text."""
    place = tmp_path / "here"
    write_task(place / "task", rows=ROWS)
    save_classifier(place / "teacher")
    lines = [{"text": "sun where sun oslo"}, {"text": "oslo"}, {"text": "rain rome"}]
    (place / "transfer.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    return place


def experiment(folder: Path, **changes: Any) -> TaskDistillConfig:
    """The experiment with whole blocks replaced, and with places of its own."""
    places = {root: str(folder.parent / root) for root in ("cache_root", "models_root", "run_root")}
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "runtime": places, **changes}))
    config = load_experiment(folder / "experiment.yaml")
    assert isinstance(config, TaskDistillConfig)
    return config


def planned(folder: Path, **changes: Any) -> str:
    stream = io.StringIO()
    config = experiment(folder, **changes)
    before = sorted(folder.parent.rglob("*"))
    print_task_plan(config, config_dir=folder, assume_gpus=None, stream=stream)
    assert sorted(folder.parent.rglob("*")) == before
    assert not ray.is_initialized()
    return stream.getvalue()


def row(text: str, name: str, *, table: str) -> list[str]:
    """The cells of one row of a table."""
    after = text.partition(table)[2]
    line = next(line for line in after.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


EXAMPLES = "Examples"
ASKED = "What the teacher is asked"
TRAINED = "Who is trained"


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


def test_what_the_cache_holds_is_no_miss(folder: Path) -> None:
    config = experiment(folder, teacher={"model": {"path": str(folder / "teacher")}, "max_tokens": 3})
    task = load_task(folder / "task/task.yaml").config
    teacher = open_task_teacher(config, task)
    ids = tuple(teacher.tokenizer("sun oslo").input_ids)
    request = SignalRequest(ids, len(ids), CLASSES)
    cache = TeacherCache.open(config.runtime.cache_root, teacher.identity)
    key = signal_key(teacher.identity.digest(), request)
    cache.signals.put([SignalRecord(key, np.array(ids, np.int32), len(ids), CLASSES, np.zeros((1, 2), np.float32))])
    assert row(planned(folder), "train", table=ASKED) == ["train", "2", "0", "2", "1", "1", "2"]


def test_a_teacher_that_is_to_be_tuned_is_said_to_be_unknown(folder: Path) -> None:
    tuned = {
        "model": {"path": "teacher"},
        "max_tokens": 3,
        "prepare": [STAGE | {"objective": "hard_labels", "data": ["train"]}],
    }
    text = planned(folder, teacher=tuned)
    assert "teacher is tuned on 2 gold examples first, 2 steps." in " ".join(text.split())
    assert "everything counts as a miss" in text
    assert row(text, "train", table=ASKED)[4:6] == ["0", "2"]


def test_a_teacher_that_is_tuned_already_is_looked_up_in_the_cache(folder: Path, tmp_path: Path) -> None:
    tuned = {"model": {"path": str(folder / "teacher")}, "max_tokens": 3}
    tuned["prepare"] = [STAGE | {"objective": "hard_labels", "data": ["train"]}]
    config, task = experiment(folder, teacher=tuned), load_task(folder / "task/task.yaml")
    sets = load_task_sets(task, config.data, folder=folder / "task", config_dir=folder, change=None)  # type: ignore[arg-type]
    chain = tuned_chain(config, task, sets, place=tmp_path / "aside")
    artifacts = Artifacts(config.runtime.run_root)
    save_classifier(chain.directory, labels=("bad", "good"))
    artifacts.keep_student(chain.digest, {})
    assert artifacts.read_student(chain.digest) is not None  # and so its hashes are remembered, as after any run
    teacher = open_task_teacher(config, task.config, prepared=chain.directory)
    ids = tuple(teacher.tokenizer("sun oslo").input_ids)
    request = SignalRequest(ids, len(ids), CLASSES)
    cache = TeacherCache.open(config.runtime.cache_root, teacher.identity)
    key = signal_key(teacher.identity.digest(), request)
    cache.signals.put([SignalRecord(key, np.array(ids, np.int32), len(ids), CLASSES, np.zeros((1, 2), np.float32))])
    text = planned(folder, teacher=tuned)
    assert "That is done already: it is asked as it was tuned." in text
    assert row(text, "train", table=ASKED) == ["train", "2", "0", "2", "1", "1", "2"]
    other = tuned | {"prepare": [{"objective": "hard_labels", "epochs": 9}]}
    assert "everything counts as a miss" in planned(folder, teacher=other)


def test_a_teacher_that_is_not_here_is_planned_by_counts(folder: Path) -> None:
    text = planned(folder, teacher={"model": {"hub": "some/encoder"}})
    assert "some/encoder is not on this machine: it is asked about 5 texts, all misses" in text
    assert row(text, "bag", table=TRAINED)[5] == "4"


SPOKEN = {"objective": "hard_labels", "labels": "teacher", "data": ["transfer"], "steps": 2}


@pytest.mark.parametrize(("answers", "asked"), [("labels", 2), ("text", 1)])
def test_questions_to_a_language_model_are_planned_set_by_set(folder: Path, answers: str, asked: int) -> None:
    model = tiny_model(folder.parent / "models_root")
    teacher = {"model": {"path": str(model.directory)}, "answers": answers}
    students = {"bag": {"start": {"kind": "bag"}, "stages": [SPOKEN]}}
    places = {root: str(folder.parent / root) for root in ("cache_root", "models_root", "run_root")}
    text = planned(
        folder, teacher=teacher, students=students, runtime=places | {"teacher_engine": {"max_model_len": 128}}
    )
    rows = {name: row(text, name, table="What the teacher is asked") for name in ("teacher-train", "teacher-test")}
    assert rows["teacher-train"][1:4] == [str(2 * asked), "0", str(2 * asked)]
    assert rows["teacher-test"][1:4] == [str(asked), "0", str(asked)]
    assert "teacher tokens" in text


def test_a_language_model_that_is_not_here_is_planned_by_counts(folder: Path) -> None:
    teacher = {"model": {"hub": "some/lm"}, "answers": "labels"}
    text = planned(folder, teacher=teacher, students={"bag": {"start": {"kind": "bag"}, "stages": [SPOKEN]}})
    assert "some/lm is not on this machine: it is asked about 6 texts, all misses" in text


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
