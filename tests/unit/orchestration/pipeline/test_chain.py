"""A student of two stages: what counts as trained, and what a stage that was killed leaves to the next run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.identity import TeacherIdentity
from configs import DistillConfig
from configs.places import CURVES, SUMMARY
from configs.schema import ModelShape
from configs.stages import StageConfig
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.chain import Link, Student, chain, stage_notes, train_link
from orchestration.pipeline.starts import Start
from student_train.files import copy_companions, staged_directory
from student_train.job import TrainJob

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=16)
STAGES = tuple(
    StageConfig.model_validate({"objective": objective, "steps": 4, "dtype": "float32"})
    for objective in ("seqkd", "kd")
)
Train = Callable[[TrainJob], Mapping[str, object]]


class Place:
    """A run root with an untouched student in it, and what the runs there said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.trained: list[str] = []
        self.losses = (2.0, 1.0)
        self.selected_step = 1
        start = root / "inits" / "start"
        start.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (start / name).write_text(f"{name} of the start")

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root, say=self.said.append)

    def student(self) -> Student:
        view = SimpleNamespace(digest="v" * 64)
        return chain(
            "s",
            stages=STAGES,
            plain=(None, None),
            start=Start("start", self.root / "inits" / "start", SHAPE, "a start"),
            views={"teacher-train": view, "teacher-dev": view},
            vocab=9,
            artifacts=self.artifacts,
        )

    def train(self, job: TrainJob) -> Mapping[str, object]:
        """Export as a worker group does."""
        self.trained.append(job.stage.objective)
        job.work_dir.mkdir(parents=True)
        rows = ({"step": at, "values": {"dev/loss": loss}} for at, loss in enumerate(self.losses))
        (job.work_dir / CURVES).write_text("".join(json.dumps(row) + "\n" for row in rows))
        with staged_directory(job.output_dir) as staging:
            copy_companions(job.model_dir, staging)
            (staging / "config.json").write_text("{}")
            (staging / "model.safetensors").write_text(f"weights after {job.stage.objective}")
        return {"selected_step": self.selected_step}

    def run(self, link: Link, *, train: Train | None = None) -> bool:
        files = SimpleNamespace(tokenizer=None, vocab=9, label="a teacher")
        identity = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)
        lesson: Any = SimpleNamespace(
            teacher=SimpleNamespace(files=files, identity=identity),
            paths={"teacher-train": self.root / "train.npz", "teacher-dev": self.root / "dev.npz"},
        )
        config: Any = SimpleNamespace(
            runtime=DistillConfig.model_fields["runtime"].default, teacher=SimpleNamespace(licence=None)
        )
        return train_link(
            link,
            config=config,
            lesson=lesson,
            accelerator="cpu",
            artifacts=self.artifacts,
            train=self.train if train is None else train,
        )

    def run_all(self) -> list[bool]:
        return [self.run(link) for link in self.student().links]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_trained_is_not_trained_again(place: Place) -> None:
    assert place.run_all() == [True, True]
    assert place.run_all() == [False, False]
    assert place.trained == ["seqkd", "kd"]
    assert list((place.root / "work").iterdir()) == []
    assert place.said == []


@pytest.mark.parametrize("moment", ["while it trains", "after its export"])
def test_a_second_stage_that_was_killed_does_not_count(moment: str, place: Place) -> None:
    first, second = place.student().links
    place.run(first)

    def killed(job: TrainJob) -> Mapping[str, object]:
        if moment == "after its export":
            place.train(job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.run(second, train=killed)
    assert place.artifacts.read_student(second.digest) is None
    if moment == "after its export":
        assert not (second.output_dir / SUMMARY).exists() and not (second.output_dir / CURVES).exists()
        for path in second.work_dir.iterdir():
            path.unlink()
        second.work_dir.rmdir()
    assert place.run(second)
    assert (second.output_dir / "model.safetensors").read_text() == "weights after kd"
    assert place.said == []


def test_a_summary_of_the_stage_before_does_not_finish_the_next(place: Place) -> None:
    first, second = place.student().links
    place.run(first)
    second.output_dir.mkdir(parents=True)
    for path in first.output_dir.iterdir():
        (second.output_dir / path.name).write_bytes(path.read_bytes())
    assert place.run(second)
    assert "belongs to" in place.said[0] and str(second.output_dir) in place.said[0]
    assert (second.output_dir / "model.safetensors").read_text() == "weights after kd"


@pytest.mark.parametrize("number", [0, 1])
def test_a_stage_whose_weights_changed_is_trained_again_and_only_that(number: int, place: Place) -> None:
    place.run_all()
    weights = place.student().links[number].output_dir / "model.safetensors"
    written = weights.read_text()
    weights.write_text(written.replace("after", "AFTER"))
    assert place.run_all() == [number == 0, number == 1]
    assert weights.read_text() == written
    (said,) = place.said
    assert said == f"{weights}: was edited or damaged, it is not what was written: it is made anew"


def notes(place: Place) -> list[str]:
    student = place.student()
    return [note for link in student.links for note in stage_notes(student, link, artifacts=place.artifacts)]


def test_a_stage_that_made_its_student_better_needs_no_word(place: Place) -> None:
    assert notes(place) == []
    place.run_all()
    assert notes(place) == []


def test_a_stage_that_made_its_student_worse_is_told_when_it_is_used_again_too(place: Place) -> None:
    first, second = place.student().links
    place.run(first)
    place.losses = (0.43, 0.5)
    place.run(second)
    for _ in range(2):
        assert notes(place) == [
            "students.s.stages.1 (kd) made the student worse: dev/loss 0.4300 -> 0.5000 at step 1; set keep_start: true, "
            "a lower learning_rate, or leave the stage out"
        ]
        place.run_all()


def test_a_stage_that_gave_back_its_start_says_so(place: Place) -> None:
    place.losses, place.selected_step = (0.43, 0.5), 0
    place.run(place.student().links[0])
    assert notes(place) == [
        "students.s.stages.0 (seqkd): no step was better than the start, which is kept (keep_start: true); set a lower "
        "learning_rate, or leave the stage out"
    ]


def test_checkpoints_that_a_kill_left_beside_a_finished_student_are_swept(place: Place) -> None:
    place.run_all()
    (link, _) = place.student().links
    (link.work_dir / "step-000000004").mkdir(parents=True)
    place.artifacts.sweep()
    assert not link.work_dir.exists()
    assert place.run_all() == [False, False]
