"""A finished run is read as it was compared; what is not finished, or not what it was, is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from audited_runs import audited_run, write_rows

from configs import ConfigError
from orchestration.audits.finished import open_finished


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    write_rows(root, train=4, dev=3, test=3)
    return audited_run(root, by_heart=False)


def test_students_stand_beside_what_they_began_as(directory: Path) -> None:
    run = open_finished(directory)
    (student,) = run.students
    assert (student.name, student.method, student.selected_step) == ("kd", "kd", 2)
    assert student.start is not None and student.start.role == "untouched"
    assert run.teacher.role == "teacher" and run.why_no_teacher_weights is None
    assert len(run.teacher_answers) == 3
    assert set(run.views) == {f"teacher-{split}.npz" for split in ("train", "dev", "test")}


def test_what_is_no_finished_run_is_said_with_the_cure(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory: name the directory of a finished run"):
        open_finished(tmp_path)
    (tmp_path / "config.yaml").write_text((directory / "config.yaml").read_text())
    with pytest.raises(
        ConfigError, match=r"is not finished: `distill run` with the config that is in it \(config.yaml"
    ):
        open_finished(tmp_path)


def test_a_student_that_is_not_what_was_compared_is_refused(directory: Path) -> None:
    weights = open_finished(directory).students[0].model.directory / "model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ConfigError, match="kd is not what was compared any more: run the experiment again"):
            open_finished(directory)
    finally:
        weights.write_bytes(kept)


def test_a_teacher_without_weights_here_is_said(directory: Path) -> None:
    teacher = open_finished(directory).teacher.directory
    moved = [path.rename(path.with_suffix(".away")) for path in teacher.glob("*.safetensors")]
    try:
        run = open_finished(directory)
        assert run.why_no_teacher_weights == f"the weights of the teacher are not in {teacher}"
    finally:
        for path in moved:
            path.rename(path.with_suffix(".safetensors"))
