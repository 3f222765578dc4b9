"""What a user writes after `make` reaches the command line as it was written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def _given(venv: Path, target: str, *variables: str) -> list[str]:
    """The arguments with which `make target` calls the command, a stand-in that prints them."""
    command = venv / "bin" / "distill"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    command.chmod(0o755)
    (venv / ".installed-cpu").touch()
    done = subprocess.run(
        ["make", "--silent", target, f"VENV={venv}", "BACKEND=cpu", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    arguments: list[str] = json.loads(done.stdout)
    return arguments


@pytest.mark.parametrize("target", ["distill", "plan", "ui"])
def test_names_may_hold_anything_that_a_file_name_may(tmp_path: Path, target: str) -> None:
    config = 'my dir/it\'s $HOME; `x` "y".yaml'
    given = _given(tmp_path / "venv", target, f"CONFIG={config}", "SET=a.b=$HOME c='x|y' d=[1,*] e=a;b")
    command = "run" if target == "distill" else target
    overrides = ["a.b=$HOME", "c='x|y'", "d=[1,*]", "e=a;b"]
    assert given == [command, "--config", config, *(part for each in overrides for part in ("--set", each))]


def test_arguments_are_read_by_the_shell(tmp_path: Path) -> None:
    given = _given(tmp_path / "venv", "distill", "ARGS=--set 'data.train.path=my dir/x.jsonl' --ray-address h:1")
    assert given[3:] == ["--set", "data.train.path=my dir/x.jsonl", "--ray-address", "h:1"]
