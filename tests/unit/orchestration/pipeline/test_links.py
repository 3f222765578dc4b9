from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.links import selected_step


@dataclass(frozen=True)
class Link:
    digest: str
    made_of: dict[str, object]
    start_dir: Path
    output_dir: Path
    work_dir: Path


@pytest.mark.parametrize(
    ("kept", "step"), [(None, None), ({"selected_step": 3}, 3), ({}, None), ({"selected_step": "x"}, None)]
)
def test_the_chosen_step_is_what_was_kept_with_a_finished_stage(
    kept: dict[str, object] | None, step: int | None, tmp_path: Path
) -> None:
    artifacts = Artifacts(tmp_path)
    link = Link("ab" * 32, {}, tmp_path, artifacts.student_dir("ab" * 32), tmp_path / "work")
    if kept is not None:
        link.output_dir.mkdir(parents=True)
        artifacts.keep_student(link.digest, kept)
    assert selected_step(link, artifacts=artifacts) == step
