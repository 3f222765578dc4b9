"""A finished run of a task is read as it was compared; what is not what it was is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audited_task_runs import audited_task_run, bag, finished, mood_rows
from screening_builders import WordGuard
from task_pipeline_builders import STAGE, FakeWorkers, spoken_place

from configs import ConfigError
from orchestration.audits.opening import open_audited
from orchestration.audits.tasks import finished as module
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_tasks import screened_task


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    rows = {name: mood_rows(count, seed=count) for name, count in {"train": 12, "dev": 6, "test": 8}.items()}
    students = {
        "bag": bag({"epochs": 2.0}, {"objective": "soft_labels", "data": ["train", "transfer"]}),
        "encoder": {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [STAGE], "seeds": 2},
    }
    return audited_task_run(root, rows, students=students, workers=FakeWorkers())


def opened(directory: Path) -> FinishedTaskRun:
    run = open_audited(directory)
    assert isinstance(run, FinishedTaskRun)
    return run


def test_students_stand_with_their_stages_and_what_they_began_as(directory: Path) -> None:
    run = opened(directory)
    students = {student.name: student for student in run.students}
    assert list(students) == ["bag", "bag-gold", "encoder", "encoder-gold"]
    assert [stage.settings.objective for stage in students["bag"].stages] == ["hard_labels", "soft_labels"]
    assert students["bag"].start is None and students["bag"].stages[0].selected_step == 1
    start = students["encoder"].start
    assert start is not None and start.name == "untouched" and (start.directory / "config.json").is_file()
    assert students["encoder-gold"].stages[0].settings.objective == "hard_labels"
    assert run.teacher is not None and run.teacher.columns == (0, 1) and run.teacher.labels == ("good", "bad")
    assert len(run.tested) == 8
    assert run.about_asking() == ["of encoder, encoder-gold the training seed that did best on dev was asked"]


def test_rows_that_a_guard_judged_are_read_by_what_it_has_said(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, asked = WordGuard("nothing"), []

    def noted(config: Any, screening: Screening) -> Any:
        asked.append(screening.guard)
        return screened_task(config, replace(screening, guard=None))

    monkeypatch.setattr(module, "planned_guard", lambda config: guard)
    monkeypatch.setattr(module, "screened_task", noted)
    opened(directory)
    assert asked == [guard]


def test_rows_that_are_not_those_that_were_compared_are_refused(directory: Path) -> None:
    path = directory.parents[1] / "test.jsonl"
    kept = path.read_text()
    changed = [json.loads(line) for line in kept.splitlines()]
    changed[3]["text"] += " w1"
    try:
        path.write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(
            ConfigError, match="row 3 of the test split of task moods is not what was compared any more"
        ):
            opened(directory)
    finally:
        path.write_text(kept)


def test_a_student_that_is_not_what_was_compared_is_refused(directory: Path) -> None:
    weights = opened(directory).students[0].model.directory / "model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ConfigError, match="bag is not what was compared any more: run the experiment again"):
            opened(directory)
    finally:
        weights.write_bytes(kept)


def test_a_teacher_that_was_changed_since_is_not_asked(directory: Path) -> None:
    config = directory.parents[1] / "teacher/config.json"
    kept = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(kept) | {"num_attention_heads": 2}))
        run = opened(directory)
        assert run.teacher is None and "does not hold the teacher that was asked any more" in run.why_no_teacher
    finally:
        config.write_text(kept)


def test_a_teacher_that_writes_is_not_asked(tmp_path: Path) -> None:
    stage = {"objective": "hard_labels", "labels": "teacher"}
    run = opened(finished(spoken_place(tmp_path, answers="text", stage=stage)))
    assert run.teacher is None and run.why_no_teacher == "the teacher writes its answers, and only engines ask it"
    assert run.teacher_row.name == "teacher"
