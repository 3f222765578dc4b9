"""A trained student as a teacher: cached under an identity of its own, in the dtype that it was trained in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import KD, FakeRun, fake_run, model_in

from configs.stages import StageConfig
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import identity_of
from orchestration.pipeline.assistants import assistant_lesson
from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.starts import Start

STUDENTS = {
    "ta": {"init": {"keep_layers": 1}, "stages": [KD]},
    "small": {"init": {"keep_layers": 1}, "stages": [KD], "teacher": "ta"},
}


def assistant(model: Path, *dtypes: str) -> Student:
    stages = [StageConfig.model_validate({"objective": "kd", "steps": 1, "dtype": dtype}) for dtype in dtypes]
    links = tuple(Link(stage, "d", model, model, model, "") for stage in stages)
    nothing: Any = None
    return Student("ta", Start("start", model, nothing, "start"), links)


def lesson(run: FakeRun, student: Student) -> Lesson:
    return assistant_lesson(student, **run.parts, prompts=run.prompts(run.teacher()))[0]


def test_it_is_asked_for_what_those_it_teaches_read(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=STUDENTS)
    model = model_in(tmp_path)
    found = lesson(run, assistant(model, "float32"))
    assert {name: len(view) for name, view in found.views.items()} == {"teacher-train": 3, "teacher-dev": 2}
    assert found.teacher.files.directory == model and found.teacher.files.label == "ta"
    assert found.cache.identity == found.teacher.identity != run.teacher().identity
    assert [pool.called for pool in run.compute.pools] == [["check 2", "fill 5", "release"]]


def test_it_sees_no_more_than_those_that_it_teaches(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=STUDENTS)
    prompts = run.prompts(run.teacher())
    shown = {
        name: tuple(replace(row, wide_ids=(7, *row.prompt_ids)) for row in rows)
        for name, rows in prompts.splits.items()
    }
    student = assistant(model_in(tmp_path), "float32")
    found, left = assistant_lesson(student, **run.parts, prompts=replace(prompts, splits=shown))
    assert not found.told and found.reader is found.cache
    assert left.splits == prompts.splits


def test_what_its_cache_holds_is_not_asked_again(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    one = lesson(fake_run(tmp_path, students=STUDENTS), assistant(model, "float32"))
    run = fake_run(tmp_path, students=STUDENTS)
    other = lesson(run, assistant(model, "float32"))
    assert [pool.called for pool in run.compute.pools] == [["release"]]
    assert "ta now teaches; 0 rows are not in its cache." in run.said
    assert one.views["teacher-train"].digest == other.views["teacher-train"].digest


def test_it_teaches_in_the_dtype_of_its_last_stage(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=STUDENTS)
    model = model_in(tmp_path)
    found = lesson(run, assistant(model, "bfloat16", "float32"))
    assert found.teacher.identity == identity_of(open_model(model, label="x"), config=run.config, dtype="float32")


def test_its_engines_are_released_whatever_happens(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=STUDENTS)
    made = run.compute.teacher_pool

    def dying(teacher: Any) -> Any:
        pool = made(teacher)

        def die() -> None:
            raise KeyboardInterrupt

        pool.on_fill = die
        return pool

    run.compute.teacher_pool = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        lesson(run, assistant(model_in(tmp_path), "float32"))
    assert run.compute.pools[0].called == ["check 2", "fill 5", "release"]
