"""What a plan says of the teacher of a task: what it is asked, what is known of one that is tuned, or not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_heads import serving_head
from served_teachers import TOKEN_ENV, serving, without_weights
from signal_builders import CLASSES
from task_files import tiny_model
from task_heads import save_classifier
from task_plan_builders import (
    ASKED,
    STAGE,
    TRAINED,
    experiment,
    planned,
    row,
    set_machine,
    write_experiment,
)

from cache import SignalRecord, SignalRequest, TeacherCache, signal_key
from configs import ConfigError
from orchestration.commands.plan_task_teacher import tuned_chain
from orchestration.inputs.generative_teachers import open_generative_teacher
from orchestration.inputs.task_sets import load_learned_task, load_task_sets
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.tasks import load_task
from orchestration.outputs.artifacts import Artifacts

SPOKEN = {"objective": "hard_labels", "labels": "teacher", "data": ["transfer"], "steps": 2}


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_machine(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


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


@pytest.mark.parametrize(("answers", "asked"), [("labels", 2), ("text", 1)])
def test_questions_to_a_language_model_are_planned_set_by_set(folder: Path, answers: str, asked: int) -> None:
    model = tiny_model(folder.parent / "models_root")
    teacher = {"model": {"path": str(model.directory)}, "answers": answers}
    students = {"bag": {"start": {"kind": "bag"}, "stages": [SPOKEN]}}
    places = {root: str(folder.parent / root) for root in ("cache_root", "models_root", "run_root")}
    text = planned(
        folder, teacher=teacher, students=students, runtime=places | {"teacher_engine": {"max_model_len": 128}}
    )
    rows = {name: row(text, name, table="What the teacher is asked") for name in ("teacher-transfer", "teacher-test")}
    assert rows["teacher-transfer"][1:4] == [str(2 * asked), "0", str(2 * asked)]
    assert "teacher-train" not in text, "nobody learns that of it"
    assert rows["teacher-test"][1:4] == [str(asked), "0", str(asked)]
    assert "teacher tokens" in text


def test_a_language_model_that_is_not_here_is_planned_by_counts(folder: Path) -> None:
    teacher = {"model": {"hub": "some/lm"}, "answers": "labels"}
    text = planned(folder, teacher=teacher, students={"bag": {"start": {"kind": "bag"}, "stages": [SPOKEN]}})
    assert "some/lm is not on this machine: it is asked about 4 texts, all misses" in text


WIDER = {"neighbours": {"before": 1}}


def test_a_teacher_that_sees_more_answers_test_and_says_what_is_cut(folder: Path) -> None:
    teacher = {"model": {"path": str(folder / "teacher")}, "max_tokens": 8}
    text = planned(folder, teacher=teacher, teacher_context=WIDER)
    seen = "beside each row the teacher sees the rows around it (1 before); students see the row alone."
    assert seen in " ".join(text.split())
    # Of the second text of train: [CLS] rain oslo [SEP] sun oslo [SEP].
    assert row(text, "train", table=ASKED) == ["train", "2", "0", "2", "0", "2", "9"]
    assert row(text, "test", table=ASKED)[:3] == ["test", "1", "0"]
    less = planned(folder, teacher=teacher | {"max_tokens": 6}, teacher_context=WIDER)
    assert "have some of it cut" in less and "to teacher.max_tokens=6" in " ".join(less.split())
    with pytest.raises(ConfigError, match=r"teacher.max_tokens=3 leaves no room for teacher_context"):
        planned(folder, teacher=teacher | {"max_tokens": 3}, teacher_context=WIDER)


def test_a_teacher_is_tuned_anew_for_another_context(folder: Path, tmp_path: Path) -> None:
    teacher = {"model": {"path": str(folder / "teacher")}, "max_tokens": 8}
    teacher["prepare"] = [STAGE | {"objective": "hard_labels", "data": ["train"]}]
    digests = set()
    for number, context in enumerate((None, WIDER, {"neighbours": {"after": 1}}, WIDER)):
        config = experiment(folder, teacher=teacher, teacher_context=context)
        task = load_learned_task(folder / "task/task.yaml", config.teacher_context)
        sets = load_task_sets(task, config.data, folder=folder / "task", config_dir=folder, change=None)  # type: ignore[arg-type]
        digests.add(tuned_chain(config, task, sets, place=tmp_path / str(number)).digest)
    assert len(digests) == 3


def test_who_answers_behind_a_door_is_said_or_why_nobody_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = {"model": {"path": str(folder / "teacher")}, "max_tokens": 3}
    config = experiment(folder, teacher=teacher)
    opened = open_task_teacher(config, load_task(folder / "task/task.yaml").config)
    with serving_head(folder, opened) as served:
        monkeypatch.setenv(TOKEN_ENV, served.token)
        said = planned(folder, teacher=teacher | {"serve": served.block()})
        assert f"seer behind {served.url.removeprefix('http://')} is {opened.identity.digest()[:12]}" in said
        assert "answered behind a door" in said and "teacher engine" not in said
    said = planned(folder, teacher=teacher | {"serve": served.block(patience_s=0.1)})
    assert "teacher.serve: " in said and "planned with what is known here" in said


def test_a_language_model_behind_a_door_is_planned_without_its_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiny_model(folder.parent / "models_root")
    teacher: dict[str, Any] = {"model": {"path": str(without_weights(files.directory, folder / "bare"))}}
    students = {"bag": {"start": {"kind": "bag", "embeddings": "random", "embedding_size": 4}, "stages": [SPOKEN]}}
    places = {root: str(folder.parent / root) for root in ("cache_root", "models_root", "run_root")}
    rest = {"students": students, "runtime": places | {"teacher_engine": {"max_model_len": 128}}}
    weighed = {"teacher": {"model": {"path": str(files.directory)}, "answers": "labels"}}
    identity = open_generative_teacher(
        experiment(folder, **weighed, **rest), load_task(folder / "task/task.yaml").config
    ).by_weights
    with serving(
        folder, identity, vocab=files.vocab, stop_ids=files.stop_ids, max_model_len=128, vocab_sha256=files.vocab_sha256
    ) as served:
        monkeypatch.setenv(TOKEN_ENV, served.token)
        teacher |= {"answers": "labels", "serve": served.block()}
        said = planned(folder, teacher=teacher, **rest)
        assert f"noise behind {served.url.removeprefix('http://')} is {identity.digest()[:12]}" in said
        assert row(said, "teacher-test", table="What the teacher is asked")[1:4] == ["2", "0", "2"]
        assert "asked where it answers" in said and "teacher engine" not in said
    teacher["serve"] = served.block(patience_s=0.1)
    said = planned(folder, teacher=teacher, **rest)
    assert "teacher.serve: " in said and "planned with what is known here" in said
    assert row(said, "teacher-test", table="What the teacher is asked")[1:4] == ["2", "0", "2"]
