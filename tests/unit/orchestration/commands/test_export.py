"""`distill export`: a student with its papers, and an ONNX file that does not go anywhere without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_students import save_student

from orchestration.commands.main import main
from student_train.papers import Papers, TaughtUnder, write_papers

Captured = pytest.CaptureFixture[str]


def taught(place: Path, licence: str, **files: bytes) -> Path:
    model = save_student(place, name="bag")
    write_papers(model, [Papers(TaughtUnder(name="teacher", label="big", licence=licence), files)])
    return model


def test_a_student_is_copied_with_what_its_teachers_ask_for(tmp_path: Path, capsys: Captured) -> None:
    model = taught(tmp_path / "student", "gemma", LICENSE=b"terms")
    assert main(["export", "--model", str(model), "--to", str(tmp_path / "small")]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/small: small, with what its teachers' licences ask for." in out
    assert "No file can do this for you: it is a derivative of its teacher, under its licence." in out
    assert (tmp_path / "small" / "licences" / "teacher" / "LICENSE").read_bytes() == b"terms"
    assert "ai.google.dev/gemma/terms" in (tmp_path / "small" / "NOTICE").read_text()
    assert main(["export", "--model", str(tmp_path / "small")]) == 0
    assert (tmp_path / "small" / "model.onnx").is_file()


def test_an_open_duty_is_one_line_and_nothing_is_copied(tmp_path: Path, capsys: Captured) -> None:
    model = taught(tmp_path / "student", "llama3.2")
    assert main(["export", "--model", str(model), "--to", str(tmp_path / "small")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be given away as small yet: llama3.2 asks for a name like Llama-small" in line
    assert not (tmp_path / "small").exists()


def test_an_onnx_file_elsewhere_would_be_without_the_licences(tmp_path: Path, capsys: Captured) -> None:
    model = taught(tmp_path / "student", "gemma", LICENSE=b"terms")
    assert main(["export", "--model", str(model), "--onnx", str(tmp_path / "model.onnx")]) == 2
    assert f"`distill export --model {model} --to FOLDER`" in capsys.readouterr().err
    assert main(["export", "--model", str(model), "--onnx", str(model / "other.onnx")]) == 0
    free = taught(tmp_path / "free", "mit")
    assert main(["export", "--model", str(free), "--onnx", str(tmp_path / "model.onnx")]) == 0


def test_a_copy_and_an_onnx_file_are_two_calls(tmp_path: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--model", str(tmp_path), "--to", "a", "--onnx", "b"])
    assert "not allowed with argument" in capsys.readouterr().err
