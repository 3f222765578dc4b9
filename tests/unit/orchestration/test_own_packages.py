"""The words of our packages mean ours, in the command line and in what it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from orchestration.cluster.private import _job
from orchestration.own_packages import NAMES, ROOT

FIND = """
import orchestration
from importlib.util import find_spec
print(*(find_spec(name).origin for name in ("configs", "cache", "evaluation")))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with packages of somebody else."""
    for name in NAMES - {"orchestration"}:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the package of somebody else')\n")
    return tmp_path


def _run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_is_ours_wherever_it_is_started(foreign: Path) -> None:
    for command in ([sys.executable, "-m", "orchestration"], [str(Path(sys.executable).with_name("distill"))]):
        assert "distill" in _run(foreign, *command, "--help")


def test_who_imports_us_gets_all_of_us(foreign: Path) -> None:
    found = _run(foreign, sys.executable, "-c", FIND).split()
    assert found == [str(ROOT / name / "__init__.py") for name in ("configs", "cache", "evaluation")]


def test_everybody_elses_packages_are_found_as_ever(foreign: Path) -> None:
    (foreign / "theirs.py").write_text("WORD = 'theirs'\n")
    assert _run(foreign, sys.executable, "-c", "import orchestration, theirs; print(theirs.WORD)") == "theirs\n"


def test_all_packages_of_the_project_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == NAMES


def test_workers_of_ray_look_into_our_folder_and_not_where_the_run_was_started() -> None:
    job = _job()
    # What `ray.init` does with its script's and the working directory.
    job._py_driver_sys_path.extend(["/somewhere/else"])
    assert list(job._get_proto_job_config().py_driver_sys_path) == [str(ROOT)]
