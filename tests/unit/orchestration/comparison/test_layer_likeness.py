"""Layers of students beside those of their teacher: what is read, what is kept, what fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from task_files import ROWS, write_task

from configs import ModelError
from evaluation.analysis.cka import cka_table
from orchestration.comparison import layer_likeness
from orchestration.comparison.layer_likeness import Stored, likenesses
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.outputs.artifacts import Artifacts

LAYERS = {"teacher": 5, "bert": 3, "bag": 2}


class Reader:
    """Gives every model states that follow from its name and the text, and notes who read what."""

    def __init__(self) -> None:
        self.read: list[tuple[str, list[Sequence[str]]]] = []

    def __call__(self, place: Path, texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        if place.name not in LAYERS:
            raise ModelError(f"{place.name}: does not load")
        self.read.append((place.name, list(texts)))
        return states(place.name, texts=len(texts))


def states(name: str, *, texts: int) -> list[NDArray[np.float32]]:
    draw = np.random.default_rng(sum(map(ord, name)))
    return [draw.standard_normal((texts, 3 + layer)).astype(np.float32) for layer in range(LAYERS[name])]


def stored(name: str) -> Stored:
    return Stored(name, Path(name), f"digest of {name}")


@pytest.fixture()
def task(tmp_path: Path) -> LoadedTask:
    test = [{"text": f"text {at}", "mood": "good"} for at in range(6)]
    return load_task(write_task(tmp_path / "task", rows={**ROWS, "test": test}))


def test_every_student_is_read_beside_the_teacher(task: LoadedTask, tmp_path: Path) -> None:
    reader, artifacts = Reader(), Artifacts(tmp_path / "runs")
    students = [stored("bert"), stored("bag")]
    found, failures = likenesses(students, teacher=stored("teacher"), task=task, artifacts=artifacts, reads=reader)
    assert not failures and list(found) == ["bert", "bag"]
    for name, each in found.items():
        assert (each.teacher, each.texts) == ("teacher", len(task.test))
        assert each.cka == cka_table(states("teacher", texts=each.texts), states(name, texts=each.texts))
    assert [name for name, _ in reader.read] == ["teacher", "bert", "bag"]
    assert all(texts == [example.parts for example in task.test] for _, texts in reader.read)


def test_nothing_is_read_twice(task: LoadedTask, tmp_path: Path) -> None:
    reader, artifacts = Reader(), Artifacts(tmp_path / "runs")
    first = likenesses([stored("bert")], teacher=stored("teacher"), task=task, artifacts=artifacts, reads=reader)
    reader.read.clear()
    again = likenesses([stored("bert")], teacher=stored("teacher"), task=task, artifacts=artifacts, reads=reader)
    assert again == first and not reader.read
    other = Stored("teacher", Path("teacher"), "of other weights")
    likenesses([stored("bert")], teacher=other, task=task, artifacts=artifacts, reads=reader)
    assert len(reader.read) == 2


def test_a_model_that_does_not_load_costs_the_others_nothing(task: LoadedTask, tmp_path: Path) -> None:
    artifacts, students = Artifacts(tmp_path / "runs"), [stored("gone"), stored("bag")]
    found, failures = likenesses(students, teacher=stored("teacher"), task=task, artifacts=artifacts, reads=Reader())
    assert list(found) == ["bag"] and failures == {"gone": "gone: does not load"}


def test_few_texts_are_said(tmp_path: Path) -> None:
    small, reader = load_task(write_task(tmp_path / "task")), Reader()
    found, failures = likenesses(
        [stored("bag")], teacher=stored("teacher"), task=small, artifacts=Artifacts(tmp_path / "runs"), reads=reader
    )
    assert not found and not reader.read
    assert failures == {"bag": "the test split has 3 texts and CKA needs 4: give the task more test rows"}


def test_many_texts_are_thinned_evenly(task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_likeness, "MOST_TEXTS", 4)
    reader = Reader()
    likenesses(
        [stored("bag")], teacher=stored("teacher"), task=task, artifacts=Artifacts(tmp_path / "runs"), reads=reader
    )
    assert reader.read[0][1] == [task.test[at].parts for at in (0, 2, 3, 5)]
