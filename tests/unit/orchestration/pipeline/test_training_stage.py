"""The training of a student of two stages: what counts as trained, what is tracked, what a killed one leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from model_cards import save_card
from pipeline_builders import NotedTracker, namespace

from cache.identity import TeacherIdentity
from configs.budgets import PaidBudgetConfig
from configs.models import ModelShape, ModelSource
from configs.places import CURVES, SUMMARY
from configs.runtime import RuntimeConfig
from configs.stages import StageConfig
from orchestration.fill.ledger import Ledger
from orchestration.inputs.plain_text import PlainTexts
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.pipeline.chain import Link, Student, chain
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.starts import Start
from orchestration.pipeline.training_stage import Training
from orchestration.plan.hardware import Hardware
from student_train.feed.plain_text import PIECES, PlainPieces
from student_train.files import copy_companions, staged_directory
from student_train.job import StepMetrics, TrainJob

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=16)
TOKENIZER = object()
STAGES = tuple(
    StageConfig.model_validate({"objective": objective, "steps": 4, "dtype": "float32"})
    for objective in ("seqkd", "kd")
)
Train = Callable[..., Mapping[str, object]]


class Place:
    """A run root with an untouched student in it, and what the runs there said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.trained: list[str] = []
        self.losses = (2.0, 1.0)
        self.selected_step = 1
        self.begins_with: ModelSource | None = None
        self.stream = io.StringIO()
        self.tracker = NotedTracker()
        start = root / "inits" / "start"
        start.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (start / name).write_text(f"{name} of the start")
        self.artifacts.keep_start("start", {})

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root, say=self.said.append)

    def student(self, *texts: PlainTexts | None) -> Student:
        return chain(
            "s",
            stages=STAGES,
            plain=texts or (None, None),
            start=Start("start", self.root / "inits" / "start", SHAPE, "a start"),
            learned=dict.fromkeys(("teacher-train", "teacher-dev"), "v" * 64),
            vocab=9,
            artifacts=self.artifacts,
        )

    def train(
        self, job: TrainJob, *, on_step: Any = lambda _: None, meanwhile: Any = None, gpu_share: float = 1.0
    ) -> Mapping[str, object]:
        """Export as a worker group does."""
        self.trained.append(job.stage.objective)
        job.work_dir.mkdir(parents=True, exist_ok=True)
        rows = [{"step": at, "values": {"dev/loss": loss}} for at, loss in enumerate(self.losses)]
        (job.work_dir / CURVES).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            on_step(StepMetrics(row["step"], row["values"]))
        with staged_directory(job.output_dir) as staging:
            copy_companions(job.model_dir, staging)
            (staging / "config.json").write_text("{}")
            (staging / "model.safetensors").write_text(f"weights after {job.stage.objective}")
        return {"selected_step": self.selected_step}

    def run(self, link: Link, *, train: Train | None = None, student: Student | None = None) -> bool:
        """Whether the stage was trained now."""
        files = namespace(tokenizer=TOKENIZER, vocab=9, label="a teacher")
        identity = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)
        lesson = namespace(
            teacher=namespace(files=files, identity=identity, known_as=files.label),
            paths={"teacher-train": self.root / "train.npz", "teacher-dev": self.root / "dev.npz"},
            views=dict.fromkeys(("teacher-train", "teacher-dev"), namespace(digest="v" * 64)),
        )
        student = student or self.student()
        config = namespace(
            runtime=RuntimeConfig(run_root=self.root, models_root=self.root / "models"),
            budgets=PaidBudgetConfig(),
            teachers={},
            every_teacher={},
            students={student.name: namespace(begins_with=self.begins_with, teacher=None)},
            licence_of_teachers=None,
            combined="",
        )
        settings = RunSettings(config, self.root, Hardware("cpu"), self.artifacts)
        tracker: Any = self.tracker
        journal = Journal(Console(self.stream), tracker, Ledger(self.root / "ledger"))
        compute = namespace(train=self.train if train is None else train)
        number = student.links.index(link)
        steps = range(2 * number, 2 * number + 2)
        before = len(self.trained)
        training = Training(student, link, steps, lesson, namespace(), settings, journal, compute)
        run_stage(training, settings=settings, journal=journal)
        return len(self.trained) > before

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

    def killed(job: TrainJob, **_: Any) -> Mapping[str, object]:
        if moment == "after its export":
            place.train(job)
            place.trained.clear()
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


def test_checkpoints_that_a_kill_left_beside_a_finished_student_are_swept(place: Place) -> None:
    place.run_all()
    (link, _) = place.student().links
    (link.work_dir / "step-000000004").mkdir(parents=True)
    place.artifacts.sweep()
    assert not link.work_dir.exists()
    assert place.run_all() == [False, False]


def test_a_step_is_tracked_where_the_stage_lies_in_the_curve_of_the_student(place: Place) -> None:
    place.run_all()
    points = [each[1:] for each in place.tracker.of("point", "s")]
    assert points == [("dev/loss", 2.0, 0), ("dev/loss", 1.0, 1), ("dev/loss", 2.0, 2), ("dev/loss", 1.0, 3)]
    # A reused student has the same curve in the run that reuses it.
    place.tracker.told.clear()
    place.run_all()
    assert [each[1:] for each in place.tracker.of("point", "s")] == points
    assert place.tracker.told[-1] == ("flush",)


def test_the_line_names_the_stage_and_the_loss_that_was_kept(place: Place) -> None:
    first, second = place.student().links
    place.run(first)
    assert "train s seqkd" in place.stream.getvalue()
    assert "1 steps, dev loss 2.000 -> 1.000\n" in place.stream.getvalue()
    place.losses, place.selected_step = (3.0, 1.0, 2.0), 1
    place.run(second, train=lambda job, **named: {**place.train(job, **named), "begun_at": 0.0})
    assert "1 steps, begun after 0.0 s, dev loss 3.000 -> 1.000 at step 1, which is kept" in place.stream.getvalue()
    place.run(second)
    said = "reused: nothing that it depends on has changed, dev loss 3.000 -> 1.000 at step 1, which is kept"
    assert said in place.stream.getvalue()


def test_the_job_says_where_it_starts_and_what_it_reads(place: Place) -> None:
    jobs: list[TrainJob] = []

    def train(job: TrainJob, **named: Any) -> Mapping[str, object]:
        jobs.append(job)
        return place.train(job, **named)

    for link in place.student().links:
        place.run(link, train=train)
    first, second = place.student().links
    assert [job.model_dir for job in jobs] == [place.root / "inits" / "start", first.output_dir]
    assert [job.output_dir for job in jobs] == [first.output_dir, second.output_dir]
    assert jobs[0].train_view == place.root / "train.npz" and jobs[0].dev_view == place.root / "dev.npz"
    assert [job.start for job in jobs] == ["a start", "a start; then seqkd for 4 steps"]
    assert (jobs[0].accelerator, jobs[0].vocab, jobs[0].teacher, jobs[0].plain_text) == ("cpu", 9, "a teacher", None)


def test_the_job_has_the_papers_of_the_model_that_the_student_begins_with(place: Place) -> None:
    place.begins_with = ModelSource(path=save_card(place.root / "inits" / "start", licence="apache-2.0"))
    jobs: list[TrainJob] = []

    def train(job: TrainJob, **named: Any) -> Mapping[str, object]:
        jobs.append(job)
        return place.train(job, **named)

    place.run(place.student().links[0], train=train)
    (papers,) = jobs[0].papers
    assert (papers.teacher.licence, papers.teacher.began, papers.teacher.taught) == ("apache-2.0", True, False)
    assert jobs[0].licence == "not stated; start: apache-2.0"


def test_the_group_finds_the_plain_text_in_the_directory_of_its_stage(place: Place) -> None:
    pieces = PlainPieces.cut([[1, 5, 6, 2]], max_tokens=8)
    text: Any = namespace(digest="t" * 64, pieces=lambda tokenizer: pieces if tokenizer is TOKENIZER else None)
    student = place.student(text, None)
    seen: list[PlainPieces] = []

    def train(job: TrainJob, **named: Any) -> Mapping[str, object]:
        seen.append(PlainPieces.load(job.work_dir / PIECES, digest=job.plain_text))
        return place.train(job, **named)

    place.run(student.links[0], train=train, student=student)
    assert seen[0].digest == pieces.digest
