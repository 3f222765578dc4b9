"""Untouched students: made before the teacher is asked, or after it where its activations choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import KD, FakeRun, fake_run, model_in

from configs import ConfigError
from orchestration.pipeline.prepare_starts import CalibratedStarts, prepare_starts
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.starts import Start


def students(**inits: dict[str, Any]) -> dict[str, Any]:
    return {name: {"init": init, "stages": [KD]} for name, init in inits.items()}


def started(run: FakeRun) -> dict[str, Start | None]:
    teacher = run.teacher()
    return prepare_starts(run.settings, run.journal, teacher=teacher, prompts=run.prompts(teacher))


def calibrated(run: FakeRun, starts: dict[str, Start | None]) -> dict[str, Start]:
    teacher = run.teacher()
    lesson = run.lesson(teacher, run.prompts(teacher))
    return run_stage(
        CalibratedStarts(starts, lesson, run.settings, run.compute), settings=run.settings, journal=run.journal
    )


def test_what_needs_no_calibration_is_made_at_once(tmp_path: Path) -> None:
    own = model_in(tmp_path)
    run = fake_run(
        tmp_path,
        students=students(cut={"keep_layers": 1}, own={"model": {"path": str(own)}}, narrow={"mlp_channels": 16}),
    )
    starts = started(run)
    cut, mine = starts["cut"], starts["own"]
    assert starts["narrow"] is None and cut is not None and mine is not None
    assert (cut.shape.layers, mine.shape.layers) == (1, 1)
    assert cut.directory == run.settings.artifacts.init_dir(cut.digest) and mine.directory == own
    assert run.settings.artifacts.has_start(cut.digest)
    # Sizes that are the same are said once; the narrow one's are known beforehand.
    (line,) = [line for line in run.said.splitlines() if line.startswith("✓ students")]
    assert "M parameters: cut, own; " in line and line.endswith("M parameters: narrow")
    assert run.compute.called == []


def test_a_student_that_cannot_work_is_refused_before_the_teacher_is_asked(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=students(deep={"keep_layers": 3}))
    with pytest.raises(ConfigError, match="keep_layers"):
        started(run)


def test_an_engine_longer_than_the_student_is_refused(tmp_path: Path) -> None:
    own = model_in(tmp_path)
    engine = {"max_model_len": 128, "max_batched_tokens": 128}
    run = fake_run(tmp_path, students=students(own={"model": {"path": str(own)}}), runtime={"student_engine": engine})
    with pytest.raises(
        ConfigError, match=r"runtime\.student_engine\.max_model_len=128 is more than the 64 .* students\.own"
    ):
        started(run)


def test_those_that_wait_are_calibrated_and_keep_their_place(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=students(narrow={"mlp_channels": 16}, cut={"keep_layers": 1}))
    starts = calibrated(run, started(run))
    assert list(starts) == ["narrow", "cut"]
    assert run.compute.called == ["derive"]
    assert run.settings.artifacts.has_start(starts["narrow"].digest)
    assert "narrow derived by what the teacher's activations say" in run.said


def test_what_another_run_calibrated_is_not_calibrated_again(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=students(narrow={"mlp_channels": 16}))
    one = calibrated(run, started(run))
    again = fake_run(tmp_path, students=students(narrow={"mlp_channels": 16}))
    assert calibrated(again, started(again)) == one
    assert again.compute.called == []


def test_without_anybody_who_waits_there_is_no_stage(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    starts = started(run)
    assert calibrated(run, starts) == starts
    assert "calibration" not in run.said
