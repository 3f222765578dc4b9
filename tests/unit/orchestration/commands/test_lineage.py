"""`distill lineage`: a line a step on the terminal, an exit code that says whether one is broken, and plain errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from descended import Descent, descended

from orchestration.commands.main import main
from orchestration.lineage.signing import SIGNATURE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Descent:
    return descended(tmp_path_factory.mktemp("descended"))


def test_every_step_is_a_line(made: Descent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(made.student)]) == 0
    shown = capsys.readouterr().out
    assert "✓ teacher" in shown and "0 are broken" in shown


def test_as_json_for_machines(made: Descent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(made.student), "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert {"what", "state", "says"} == set(steps[0]) and steps[-1]["what"] == "teacher"


def test_one_that_is_broken_is_marked_and_the_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = descended(tmp_path)
    (made.student / "tokenizer.json").write_text('{"vocab": {"a": 1}}')
    assert main(["lineage", str(made.student)]) == 1
    assert "✗ files" in capsys.readouterr().out


def test_what_is_no_student_is_one_line(made: Descent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(made.teacher)]) != 0
    assert "not a student that was made here" in capsys.readouterr().err
    assert main(["lineage", str(made.teacher / "nowhere")]) != 0
    assert "is not a directory: name that of a student" in capsys.readouterr().err


def test_a_student_that_holds_is_signed_and_one_that_does_not_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = descended(tmp_path)
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    assert main(["lineage", str(made.student), "--signed-by", str(public)]) == 1
    assert main(["lineage", str(made.student), "--sign", str(private)]) == 0
    assert main(["lineage", str(made.student), "--signed-by", str(public)]) == 0
    assert "✓ signature" in capsys.readouterr().out
    (made.before / "model.safetensors").write_bytes(b"other weights")
    (made.student / SIGNATURE).unlink()
    assert main(["lineage", str(made.student), "--sign", str(private)]) == 1
    assert not (made.student / SIGNATURE).exists()
