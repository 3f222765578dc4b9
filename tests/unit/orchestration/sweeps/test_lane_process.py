"""What a lane tells of an experiment that came to its end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.places import CURVES
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.experiment import Ended
from orchestration.sweeps import lane_process
from orchestration.sweeps.lane_process import outcome_of


def student(artifacts: Artifacts, name: str, *, losses: list[float], selected: int, start: float) -> Any:
    digest = name * 64
    directory = artifacts.student_dir(digest)
    directory.mkdir(parents=True)
    points = [{"step": step, "values": {"dev/forward_kl": loss, "dev/odd": 1e400}} for step, loss in enumerate(losses)]
    points.insert(1, {"step": 0, "values": {"train/loss": 9.0}})
    (directory / CURVES).write_text("".join(json.dumps(point) + "\n" for point in points))
    artifacts.keep_student(digest, {"selected_step": selected, "took": {"start_seconds": start}})
    return SimpleNamespace(links=[SimpleNamespace(digest=digest, output_dir=directory)], directory=directory)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    shape = SimpleNamespace(shape=SimpleNamespace(parameters=50))
    monkeypatch.setattr(lane_process, "read_architecture", lambda directory: shape)
    return Artifacts(tmp_path)


def test_the_step_that_became_the_student_counts(artifacts: Artifacts) -> None:
    made = student(artifacts, "a", losses=[3.0, 1.0, 2.0], selected=1, start=2.5)
    outcome = outcome_of(Ended(Path("runs/a"), 12, (made,)), artifacts=artifacts, seconds=9.0)
    assert outcome.dev == {"dev/forward_kl": 1.0}
    assert (outcome.parameters, outcome.start_seconds, outcome.teacher_tokens) == (50, 2.5, 12)
    assert outcome.seconds == 9.0
    assert outcome.failure == "" and outcome.directory == "runs/a"


def test_of_several_students_the_mean_is_told(artifacts: Artifacts) -> None:
    made = [
        student(artifacts, name, losses=[3.0, loss], selected=1, start=1.0) for name, loss in (("a", 1.0), ("b", 2.0))
    ]
    outcome = outcome_of(Ended(Path("runs/a"), 0, tuple(made)), artifacts=artifacts, seconds=9.0)
    assert outcome.dev == {"dev/forward_kl": 1.5}
    assert (outcome.parameters, outcome.start_seconds) == (100, 2.0)


def test_a_fill_has_no_students(artifacts: Artifacts) -> None:
    outcome = outcome_of(Ended(Path("runs/a"), 7), artifacts=artifacts, seconds=9.0)
    assert (outcome.dev, outcome.parameters, outcome.teacher_tokens) == ({}, 0, 7)
