"""The comparison of an experiment that distils a task: rows, seeds, failures, and what is kept of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline_builders import NotedTracker
from results_builders import text_serving
from task_files import ROWS, write_task
from task_predictors import FakePredictor

from configs import ModelError
from configs.models import Device
from evaluation.results import DevScores, FinalScores
from evaluation.tasks.measuring import measure_one
from orchestration.comparison.text_speed import Texts, Timed
from orchestration.fill.ledger import Ledger
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.pipeline.run import Journal
from orchestration.pipeline.tasks.comparison import (
    ComparedTask,
    GivenAnswers,
    TaskModel,
    compare_task_models,
    evened,
)
from orchestration.plan.hardware import Hardware

# Of three test rows the right labels are good, bad, good; of the dev row good.
RIGHT = {"fog": "bad"}
ONE_WRONG: Mapping[str, str] = {}
WRONG_ON_DEV = {"fog": "bad", "jam": "bad"}


@dataclass
class Settings:
    """A run in a folder."""

    root: Path
    config: Any = None
    hardware: Hardware = field(default_factory=lambda: Hardware("cpu", cpus=2))
    device: Device = "cpu"

    @property
    def directory(self) -> Path:
        return self.root / "run"

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root / "runs")

    @property
    def logs(self) -> Path:
        return self.directory / "logs"


@dataclass
class Compared:
    """Compares fakes: a directory answers as `says` tells by its name; one that is not in it does not load."""

    root: Path
    task: LoadedTask
    says: Mapping[str, Mapping[str, str]]
    opened: list[str] = field(default_factory=list)
    timed: dict[str, Path] = field(default_factory=dict)
    stream: io.StringIO = field(default_factory=io.StringIO)
    tracker: NotedTracker = field(default_factory=NotedTracker)

    def __call__(self, *models: TaskModel, **others: Any) -> ComparedTask:
        noted: Any = self.tracker
        directory = self.root / "run"
        directory.mkdir(exist_ok=True)
        journal = Journal(Console(self.stream), noted, Ledger.open(directory))
        return compare_task_models(
            models, task=self.task, settings=Settings(self.root), journal=journal, opened=self._open, timed=self._time,
            **others,
        )  # fmt: skip

    def _open(self, place: Path) -> FakePredictor:
        self.opened.append(place.name)
        if place.name not in self.says:
            raise ModelError(f"{place.name}: does not load")
        return FakePredictor(self.says[place.name], parameters=len(place.name))

    def _time(self, models: Mapping[str, Path], texts: Texts, log: Path) -> Timed:
        assert list(texts) == [example.parts for example in self.task.test] and log.parent.is_dir()
        self.timed = dict(models)
        served = {name: text_serving({1: (0.1, 0.2, 0.3)}) for name in models if name != "untimed"}
        return Timed(served, {name: "gone" for name in models if name == "untimed"})


Comparing = Callable[..., Compared]


@pytest.fixture()
def comparing(tmp_path: Path) -> Comparing:
    task = load_task(write_task(tmp_path / "task"))

    def made(**says: Mapping[str, str]) -> Compared:
        for name in says:
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors").write_bytes(b"1234567890")
        return Compared(tmp_path, task, says)

    return made


def model(compared: Compared, name: str, *places: str, **fields: Any) -> TaskModel:
    directories = tuple(compared.root / place for place in places or (name,))
    made = TaskModel(
        name=name, role="student", method="logit_mse", start=None, directories=directories,
        digests=tuple(f"digest of {place.name}" for place in directories), training=None,
    )  # fmt: skip
    return replace(made, **fields)


def accuracy(task: LoadedTask, scores: FinalScores | DevScores) -> float:
    return measure_one(task.facts, scores.examples).value


def test_every_model_is_a_row_with_both_splits(comparing: Comparing) -> None:
    compare = comparing(teacher=RIGHT, bag=ONE_WRONG)
    found = compare(model(compare, "teacher", role="teacher", method=""), model(compare, "bag"))
    assert [(row.name, row.role, row.digest) for row in found.rows] == [
        ("teacher", "teacher", "digest of teacher"),
        ("bag", "student", "digest of bag"),
    ]
    teacher, bag = found.rows
    assert accuracy(compare.task, teacher.tasks[0]) == 1.0
    assert accuracy(compare.task, bag.tasks[0]) == pytest.approx(2 / 3)
    assert accuracy(compare.task, bag.dev[0]) == 1.0 and isinstance(bag.dev[0], DevScores)
    assert (bag.parameters, bag.disk_bytes, bag.tasks[0].answered_by) == (3, 10, "head")
    assert bag.tasks[0].examples[0].confidence == 0.75
    assert bag.serving is not None and bag.serving.texts[0].text_s == (0.1, 0.2, 0.3)
    assert found.failures == [] and found.notes == [] and len(found.evidence) == 4
    assert all(Settings(compare.root).artifacts.holds_evaluation(digest) for digest in found.evidence)
    assert "2 models on 3 test rows" in compare.stream.getvalue()


def test_answers_that_are_kept_are_not_asked_again(comparing: Comparing) -> None:
    compare = comparing(bag=RIGHT)
    first = compare(model(compare, "bag"))
    second = compare(model(compare, "bag"))
    assert compare.opened == ["bag"]
    # As text, for a NaN is unlike itself.
    assert repr(second.rows) == repr(first.rows) and second.evidence == first.evidence


def test_seeds_are_one_row_and_dev_says_which_is_shown(comparing: Comparing) -> None:
    compare = comparing(teacher=RIGHT, s0=WRONG_ON_DEV, s1=ONE_WRONG, s2=ONE_WRONG)
    found = compare(model(compare, "teacher", role="teacher"), model(compare, "bag", "s0", "s1", "s2"))
    teacher, bag = found.rows
    # Test has the first seed ahead; the second is the first of the best on dev.
    assert bag.digest == "digest of s1" and compare.timed["bag"].name == "s1" and found.shown["bag"].name == "s1"
    assert [(one.row, one.seed) for one in bag.tasks[0].examples] == [(r, s) for s in range(3) for r in range(3)]
    assert accuracy(compare.task, bag.tasks[0]) == pytest.approx((3 + 2 + 2) / 9)
    assert (teacher.seeds, bag.seeds) == (1, 3)
    assert [(one.row, one.seed) for one in teacher.tasks[0].examples] == [(r, s) for s in range(3) for r in range(3)]
    assert len(teacher.dev[0].examples) == len(bag.dev[0].examples) == 3
    (note,) = found.notes
    assert note.startswith(
        "bag: accuracy on test under 3 training seeds: 100.0 %, 66.7 %, 66.7 %; the one that is best"
    )
    assert note.endswith("/s1")


def test_seeds_that_do_not_divide_each_other_meet_at_their_multiple(comparing: Comparing) -> None:
    compare = comparing(a0=RIGHT, a1=RIGHT, b0=RIGHT, b1=RIGHT, b2=ONE_WRONG)
    found = compare(model(compare, "a", "a0", "a1"), model(compare, "b", "b0", "b1", "b2"))
    assert [len({one.seed for one in row.tasks[0].examples}) for row in found.rows] == [6, 6]
    assert accuracy(compare.task, found.rows[1].tasks[0]) == pytest.approx(8 / 9)
    assert evened([]) == []


def test_one_broken_model_costs_the_others_nothing(comparing: Comparing) -> None:
    compare = comparing(bag=RIGHT, s1=RIGHT)
    found = compare(
        model(compare, "teacher", role="teacher"), model(compare, "bag"), model(compare, "lstm", "s0", "s1")
    )
    assert found.failures == ["teacher: teacher: does not load"]
    assert [(row.name, row.failures, row.seeds) for row in found.rows] == [
        ("bag", (), 1),
        ("lstm", ("seed 0: s0: does not load",), 1),
    ]
    assert "1 could not be asked" in compare.stream.getvalue()


def test_a_time_that_could_not_be_taken_is_a_line_of_its_row(comparing: Comparing) -> None:
    compare = comparing(untimed=RIGHT, bag=RIGHT)
    found = compare(model(compare, "untimed"), model(compare, "bag"))
    assert [(row.serving is None, row.failures) for row in found.rows] == [(True, ("speed: gone",)), (False, ())]


def test_a_teacher_without_a_head_brings_its_answers(comparing: Comparing) -> None:
    compare = comparing(bag=RIGHT)
    answered = compare(model(compare, "bag")).rows[0]
    given = GivenAnswers(answered.dev[0], answered.tasks[0], parameters=9, disk_bytes=90, digest="lm", note="asked")
    found = compare(model(compare, "teacher", role="teacher", directories=(), digests=()), given={"teacher": given})
    (row,) = found.rows
    assert (row.digest, row.parameters, row.disk_bytes, row.serving) == ("lm", 9, 90, None)
    assert row.tasks == answered.tasks and compare.opened == ["bag"] and found.notes == ["teacher: asked"]
    opened = replace(given, directory=compare.root / "bag")
    found = compare(model(compare, "teacher", role="teacher", directories=(), digests=()), given={"teacher": opened})
    assert found.shown == {"teacher": opened.directory} and found.rows[0].serving is not None
    found = compare(model(compare, "nobody", directories=(), digests=()))
    assert found.rows == [] and found.failures == ["nobody: there is no directory of it"]


def test_texts_that_are_cut_are_counted(comparing: Comparing, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = comparing(bag=RIGHT)
    monkeypatch.setattr(compare, "_open", lambda place: FakePredictor(RIGHT, cut=("fog", "jam")))
    found = compare(model(compare, "bag"))
    assert found.notes == ["bag: 1 of 3 test texts are longer than it reads, and cut"]


def test_without_dev_the_first_seed_is_shown(comparing: Comparing, tmp_path: Path) -> None:
    compare = comparing(s0=ONE_WRONG, s1=RIGHT)
    rows = {split: ROWS[split] for split in ("train", "test")}
    data = {split: {"path": f"{split}.jsonl"} for split in rows}
    compare.task = load_task(write_task(tmp_path / "without", rows=rows, data=data))
    (row,) = compare(model(compare, "bag", "s0", "s1")).rows
    assert row.digest == "digest of s0" and row.dev == ()


def test_what_was_found_is_tracked(comparing: Comparing) -> None:
    compare = comparing(teacher=RIGHT, bag=ONE_WRONG)
    compare(model(compare, "teacher", role="teacher"), model(compare, "bag"))
    assert compare.tracker.of("child") == [("teacher", {"role": "teacher"}, None)]
    finals = dict(compare.tracker.of("final"))
    assert finals["teacher"]["eval/test/accuracy"] == 1.0 and finals["bag"]["eval/text_s_batch_1"] == 0.2


def test_layers_of_students_are_held_against_the_first_teacher_that_opens(comparing: Comparing) -> None:
    compare = comparing(large=RIGHT, bag=RIGHT, bert=RIGHT)
    compare.task = replace(compare.task, test=(*compare.task.test, *compare.task.test))
    compare.task = replace(compare.task, test=tuple(replace(each, row=at) for at, each in enumerate(compare.task.test)))

    def reads(place: Path, texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        if place.name == "bag":
            raise ModelError("bag: cannot be looked into")
        draw = np.random.default_rng(len(place.name))
        return [draw.standard_normal((len(texts), 3)).astype(np.float32) for _ in place.name]

    teachers = [model(compare, name, role="teacher", method="") for name in ("gone", "large")]
    found = compare(*teachers, model(compare, "bag"), model(compare, "bert"), cka=reads)
    rows = {row.name: row for row in found.rows}
    assert [name for name, row in rows.items() if row.likeness is not None] == ["bert"]
    likeness = rows["bert"].likeness
    assert likeness is not None and (likeness.teacher, likeness.texts) == ("large", 6)
    assert (len(likeness.cka), len(likeness.cka[0])) == (5, 4)
    assert "CKA: bag: cannot be looked into" in rows["bag"].failures
    tracked = {name for told in compare.tracker.of("final", "bert") for name in told[-1]}
    assert {f"eval/test/cka_layer_{at}" for at in range(4)} <= tracked


def test_where_no_teacher_opens_that_is_said(comparing: Comparing) -> None:
    compare = comparing(bag=RIGHT)
    found = compare(model(compare, "bag"), cka=lambda place, texts: [])
    assert found.rows[0].likeness is None
    assert "CKA: there is no teacher whose layers could be read" in found.notes
