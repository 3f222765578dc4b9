"""Who is compared, and as what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_builders import fake_run, model_in, student

from orchestration.pipeline.candidates import student_candidates, teacher_candidate


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return model_in(tmp_path, seed=1), model_in(tmp_path, seed=2)


def test_a_teacher_is_known_by_its_identity(tmp_path: Path) -> None:
    teacher = fake_run(tmp_path).teacher()
    found = teacher_candidate(teacher)
    assert (found.name, found.role, found.method, found.start) == ("teacher", "teacher", "", None)
    assert (found.digest, found.identity) == (teacher.identity.digest(), teacher.identity)
    assert teacher_candidate(teacher, name="second") == replace(found, name="second")


def test_each_start_is_measured_once_in_every_dtype_that_it_is_trained_in(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    run = fake_run(tmp_path)
    students = [
        student("a", *models, "bfloat16", "float32"),
        student("b", *models, "float32"),
        student("c", *models, "float32", "bfloat16"),
    ]
    wanted, unreadable = student_candidates(students, config=run.config)
    assert unreadable == []
    # The start is the same for all three; it is what is loaded for the first stage that counts.
    assert {each.name: each.identity.dtype for each in wanted} == {
        "untouched (a)": "bfloat16", "untouched (c)": "float32", "a": "float32", "b": "float32", "c": "bfloat16",
    }  # fmt: skip


def test_a_trained_student_says_how_and_from_where_it_was_made(tmp_path: Path, models: tuple[Path, Path]) -> None:
    made = student("kd", *models, "float32", "float32")
    (start, kd), _ = student_candidates([made], config=fake_run(tmp_path).config)
    assert (start.name, start.role, start.digest, start.directory) == ("untouched", "untouched", "start", models[0])
    assert (kd.name, kd.role, kd.digest, kd.directory) == ("kd", "student", made.digest, models[1])
    assert (kd.method, kd.start) == ("kd, kd", "untouched")


def test_one_that_cannot_be_read_is_a_line(tmp_path: Path, models: tuple[Path, Path]) -> None:
    lost = student("lost", *models, "float32")
    (models[1] / "config.json").unlink()
    found, unreadable = student_candidates([lost], config=fake_run(tmp_path).config)
    assert [each.name for each in found] == ["untouched"]
    assert len(unreadable) == 1 and unreadable[0].startswith("lost: ")
