"""The words of our packages mean ours, in the command line and in what it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestration.cluster.private import _job
from orchestration.own_packages import NAMES, ROOT, own_command

FIND = """
import orchestration
from importlib.util import find_spec
print(*(find_spec(name).origin for name in ("configs", "cache", "evaluation")))
"""

FIND_ALL = """
def main():
    import configs, cache, orchestration
    print(configs.__file__, cache.__file__, orchestration.__file__)
"""


def _put_foreign(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('the package of somebody else')\n")
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with packages of somebody else."""
    return _put_foreign(tmp_path, NAMES - {"orchestration"})


@pytest.fixture
def all_foreign(tmp_path: Path) -> Path:
    """A folder in which every one of our names is a package of somebody else."""
    return _put_foreign(tmp_path, NAMES)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_is_ours_wherever_it_is_started(foreign: Path) -> None:
    for command in ([sys.executable, "-m", "orchestration"], [str(Path(sys.executable).with_name("distill"))]):
        assert "distill" in _run(foreign, *command, "--help")


def test_the_door_is_ours_where_even_orchestration_is_somebody_elses(all_foreign: Path) -> None:
    """`distill` begins with `stillroom`; the folder is the working directory and on PYTHONPATH as well."""
    assert _run(all_foreign, sys.executable, "-P", str(ROOT / "stillroom.py"), "--help").startswith("usage: distill")
    assert _run(all_foreign, sys.executable, "-P", "-m", "stillroom", "--help").startswith("usage: distill")


def test_so_is_everything_in_the_processes_that_a_run_starts(all_foreign: Path) -> None:
    (all_foreign / "probe.py").write_text(FIND_ALL)
    found = _run(all_foreign, *own_command("probe")).split()
    assert found == [str(ROOT / name / "__init__.py") for name in ("configs", "cache", "orchestration")]


def test_the_script_begins_with_the_door() -> None:
    assert _project()["project"]["scripts"] == {"distill": "stillroom:main"}


def test_who_imports_us_gets_all_of_us(foreign: Path) -> None:
    found = _run(foreign, sys.executable, "-c", FIND).split()
    assert found == [str(ROOT / name / "__init__.py") for name in ("configs", "cache", "evaluation")]


def test_everybody_elses_packages_are_found_as_ever(foreign: Path) -> None:
    (foreign / "theirs.py").write_text("WORD = 'theirs'\n")
    assert _run(foreign, sys.executable, "-c", "import orchestration, theirs; print(theirs.WORD)") == "theirs\n"


def test_all_packages_of_the_project_are_named() -> None:
    assert set(_project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == NAMES | {"stillroom.py"}


def test_workers_of_ray_look_into_our_folder_and_not_where_the_run_was_started() -> None:
    job = _job()
    # What `ray.init` does with its script's and the working directory.
    job._py_driver_sys_path.extend(["/somewhere/else"])
    assert list(job._get_proto_job_config().py_driver_sys_path) == [str(ROOT)]
