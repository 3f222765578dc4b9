"""Which rows a student learned from: those that its steps have read, of the views that its stages name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from audited_runs import audited_run, write_rows
from pipeline_builders import KD

from cache import CacheView
from configs import ConfigError
from configs.rollouts import RolloutConfig
from orchestration.audits.finished import open_finished
from orchestration.audits.learned import Learned, Views, learned_by


def learned(directory: Path) -> tuple[Learned, ...]:
    run = open_finished(directory)
    return learned_by(run.students[0], run)


def students(**stage: object) -> dict[str, object]:
    return {"kd": {"init": {"keep_layers": 1}, "stages": [{**KD, **stage}]}}


def test_members_are_the_train_rows_and_others_those_of_dev_and_test(tmp_path: Path) -> None:
    write_rows(tmp_path, train=7, dev=4, test=3)
    directory = audited_run(tmp_path, by_heart=False)
    (told,) = learned(directory)
    views = {name: CacheView.load(directory / "views" / f"teacher-{name}.npz") for name in ("train", "dev", "test")}
    assert {record.key for record in told.members} == {bytes(key) for key in views["train"].keys}
    assert {record.key for record in told.others} == {
        bytes(key) for name in ("dev", "test") for key in views[name].keys
    }
    assert all(record.target_logprobs is not None for record in (*told.members, *told.others))
    assert told.views == {f"teacher-{name}.npz": view.digest for name, view in views.items()}
    assert told.source == "teacher" and told.notes == ()


def test_rows_that_no_step_has_read_are_no_members(tmp_path: Path) -> None:
    write_rows(tmp_path, train=20, dev=4, test=3)
    # One row fills a step, and the fake keeps the student of step 2.
    directory = audited_run(tmp_path, by_heart=False, students=students(tokens_per_step=8))
    (told,) = learned(directory)
    assert len(told.members) == 2
    assert told.notes == ("kd read 2 of its 20 training rows, and only those count as such",)


def test_filters_are_noted(tmp_path: Path) -> None:
    write_rows(tmp_path, train=12, dev=4, test=3)
    directory = audited_run(tmp_path, by_heart=False, students=students(filters={"drop_duplicates": True}))
    (told,) = learned(directory)
    assert told.notes == ("filters chose the rows that kd learned from, and not the held-out ones",)


def test_other_rows_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, train=4, dev=3, test=3)
    directory = audited_run(tmp_path, by_heart=False)
    run = open_finished(directory)
    views = Views(run, "")
    train, dev = (views.path(f"teacher-{name}") for name in ("train", "dev"))
    assert train is not None and dev is not None
    train.write_bytes(dev.read_bytes())
    with pytest.raises(ConfigError, match="names other rows than those that were compared on"):
        views.open(train)


def test_what_a_student_wrote_itself_adds_no_members_beside_rows_that_it_has_read(tmp_path: Path) -> None:
    write_rows(tmp_path, train=20, dev=4, test=3)
    run = open_finished(audited_run(tmp_path, by_heart=False, students=students(tokens_per_step=8)))
    (student,) = run.students
    stage = student.settings.stages[0]
    rollout = RolloutConfig.model_validate({"count": 1, "prompts": 4})
    wrote = stage.model_copy(update={"rollout": rollout, "steps": None})
    both = replace(student, settings=student.settings.model_copy(update={"stages": (stage, wrote)}))
    (told,) = learned_by(both, run)
    # Four steps of one row each: only the last stage is cut at the step that was selected.
    assert len(told.members) == 4
    assert "kd learned from what the student wrote itself, which was not asked about" in told.notes
    alone = replace(student, settings=student.settings.model_copy(update={"stages": (wrote,)}))
    (told,) = learned_by(alone, run)
    assert len(told.members) == 20
    assert any("the teacher's answers to them stand for it" in note for note in told.notes)
