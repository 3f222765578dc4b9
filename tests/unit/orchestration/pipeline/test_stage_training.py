"""What the training of a stage has in common, whatever it learns, on a job that is nobody's."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_builders import NotedTracker, namespace

from configs.budgets import BudgetConfig
from configs.places import CURVES
from orchestration.fill.ledger import Ledger
from orchestration.lineage.records import MADE_OF, from_summary
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.console import Console
from orchestration.pipeline.run import Journal
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.stage_training import OnStep, StageTraining, TrainingOutcome
from orchestration.pipeline.training_cost import Took
from student_train.job import StepMetrics


@dataclass(frozen=True)
class Link:
    digest: str
    made_of: dict[str, object]
    start_dir: Path
    output_dir: Path
    work_dir: Path


@dataclass(slots=True)
class Training(StageTraining[Any]):
    """Makes a file, in as many steps as it is told."""

    link: Link
    steps: range
    settings: Any
    journal: Journal
    trained: list[int]

    @property
    def child(self) -> str:
        return "someone"

    @property
    def title(self) -> str:
        return "train someone"

    def learned(self) -> dict[Path, str]:
        return {self.settings.directory / "views/train.npz": "cd" * 32}

    def job(self) -> Any:
        training = namespace(workers=2, cpus_per_worker=1.0, zero_stage=0)
        return namespace(settings=training, stage=namespace(dtype="float32"))

    def train(self, work: Any, on_step: OnStep) -> TrainingOutcome:
        self.trained.append(1)
        self.link.work_dir.mkdir(parents=True)
        self.link.output_dir.mkdir(parents=True)
        rows = [{"step": at, "values": {"dev/loss": 3.0 - at, "dev/accuracy": at / 4}} for at in range(3)]
        (self.link.work_dir / CURVES).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            on_step(StepMetrics(row["step"], row["values"]))
        return {"selected_step": 1, "steps": 2}


def test_a_stage_is_trained_once_kept_and_tracked_from_where_its_curve_begins(tmp_path: Path) -> None:
    artifacts, stream, tracker = Artifacts(tmp_path), io.StringIO(), NotedTracker()
    begun = artifacts.init_dir("ef" * 32)
    begun.mkdir(parents=True)
    artifacts.keep_start("ef" * 32, {})
    digest = digest_of(start="ef" * 32)
    link = Link(digest, {"start": "ef" * 32}, begun, artifacts.student_dir(digest), artifacts.work_dir(digest))
    noted: Any = tracker
    journal = Journal(Console(stream), noted, Ledger.open(tmp_path))
    runtime = namespace(run_root=tmp_path, models_root=tmp_path)
    settings = namespace(
        artifacts=artifacts,
        device="cpu",
        directory=tmp_path / "e-1",
        config=namespace(runtime=runtime, budgets=BudgetConfig()),
    )
    trained: list[int] = []
    curves = [
        run_stage(Training(link, range(10, 14), settings, journal, trained), settings=settings, journal=journal)
        for _ in range(2)
    ]
    assert trained == [1] and curves[0] == curves[1]
    assert not link.work_dir.exists()
    summary = artifacts.read_student(link.digest)
    assert summary is not None and summary["selected_step"] == 1
    assert digest_of(**summary[MADE_OF]) == digest  # type: ignore[arg-type]
    lineage = from_summary(summary)
    assert lineage is not None and (lineage.run, lineage.start) == ("e-1", f"inits/{'ef' * 8}")
    assert lineage.learned == {"views/train.npz": "cd" * 32} and lineage.start_model == ""
    assert Took.of(summary).trained_on.startswith("2 ")
    steps = [step for _, name, _, step in tracker.of("point", "someone") if name == "dev/loss"]
    assert steps == [10, 11, 12] * 2
    first, second = [line for line in stream.getvalue().splitlines() if line.startswith("✓ train someone")]
    # It ended before its last step, and says how many it had.
    assert (
        "2 steps" in first and "dev loss 3.000 -> 2.000, dev accuracy 0.000 -> 0.250 at step 1, which is kept" in first
    )
    assert "reused: nothing that it depends on has changed" in second
