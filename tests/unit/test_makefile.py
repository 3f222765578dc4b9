"""What a user writes after `make` reaches the command line as it was written, and `make setup` finds a Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
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


STAND_IN = """#!/bin/sh
# A Python {version} that makes environments of itself and writes down what it and its uv are to do.
case "$1 $2" in
    "-c "*) test -z "$2" || echo {version};;
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/uv"; touch "$3/pyvenv.cfg";;
    "-m pytest") echo "{version} $*" >> {log}; exit {tests};;
    *) echo "{version} $*" >> {log};;
esac
"""


@dataclass(frozen=True, slots=True)
class Clone:
    """What `make setup` reads of a clone, on a machine with these stand-ins for Python and no others."""

    root: Path

    def python(self, version: str, *, at: str = "bin", tests: int = 0) -> Path:
        path = self.root / at / f"python{version}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN.format(version=version, log=self.root / "log", tests=tests))
        path.chmod(0o755)
        return path

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PY", "PIP", "MAKE"))}
        return subprocess.run(
            ["make", "--silent", "BACKEND=cpu", *arguments],
            cwd=self.root,
            env=inherited | {"PATH": f"{self.root / 'bin'}", "PYENV_ROOT": str(self.root / "pyenv")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()

    def version(self, venv: str = ".venv") -> str:
        done = subprocess.run(
            [self.root / venv / "bin/python", "-c", "..."], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "bin").mkdir()
    for name in ("make", "sh", "cp", "mkdir", "rm", "touch", "grep"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return Clone(tmp_path)


@pytest.mark.parametrize(
    ("there", "taken"),
    [(("3.13", "3.12", "3.11"), "3.11"), (("3.12", "3.13"), "3.12"), (("3.10", "3.13"), "3.13")],
)
def test_the_lowest_python_that_will_do_is_taken(clone: Clone, there: tuple[str, ...], taken: str) -> None:
    for version in there:
        clone.python(version)
    done = clone.make("setup")
    assert done.returncode == 0, done.stderr
    assert clone.version() == taken
    assert any(line.startswith(f"{taken} pip install") and "requirements/cpu.txt" in line for line in clone.log())


def test_a_stand_in_of_pyenv_that_does_not_start_is_passed_over(clone: Clone) -> None:
    for version in ("3.11", "3.12"):
        (clone.root / f"bin/python{version}").write_text("#!/bin/sh\nexit 127\n")
        (clone.root / f"bin/python{version}").chmod(0o755)
    clone.python("3.12", at="pyenv/versions/3.12.1/bin")
    assert clone.make("setup").returncode == 0
    assert clone.version() == "3.12"


def test_a_python_that_is_named_replaces_the_one_of_an_environment_and_stays(clone: Clone) -> None:
    clone.python("3.11")
    clone.python("3.13")
    clone.make("setup")
    done = clone.make("setup", "PYTHON=python3.13")
    assert done.returncode == 0, done.stderr
    assert "make: .venv is made anew with Python 3.13" in done.stdout
    assert clone.version() == "3.13"
    installed = len(clone.log())
    for arguments in ([], ["PYTHON=python3.13"]):
        assert clone.make("setup", *arguments).returncode == 0
    assert (clone.version(), len(clone.log())) == ("3.13", installed)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([], "found no Python of the versions 3.11 3.12 3.13. Install one, or name one with PYTHON=/its/path"),
        (["PYTHON=python3.12"], "PYTHON=python3.12 does not start. Name a Python of the versions 3.11 3.12 3.13"),
        (["PYTHON=python3.10"], "PYTHON=python3.10 is Python 3.10, and has to be of the versions 3.11 3.12 3.13"),
    ],
)
def test_without_a_python_that_will_do_it_says_so(clone: Clone, named: list[str], said: str) -> None:
    clone.python("3.10")
    done = clone.make("setup", *named)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"make: {said}"


def test_an_environment_outlives_a_name_that_will_not_do(clone: Clone) -> None:
    clone.python("3.11")
    clone.python("3.10")
    clone.make("setup")
    assert clone.make("setup", "PYTHON=python3.10").returncode == 2
    assert clone.version() == "3.11"


def test_a_folder_that_is_not_an_environment_keeps_what_is_in_it(clone: Clone) -> None:
    clone.python("3.11")
    kept = clone.root / "mine" / "notes.txt"
    kept.parent.mkdir()
    kept.touch()
    assert clone.make("setup", "VENV=mine").returncode == 0
    assert kept.exists()


def test_every_python_that_is_found_is_tested_in_an_environment_of_its_own(clone: Clone) -> None:
    clone.python("3.11")
    clone.python("3.13")
    done = clone.make("test-pythons")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["Python 3.11: passed", "Python 3.12: not found", "Python 3.13: passed"]
    tested = [line.split()[0] for line in clone.log() if "-m pytest" in line]
    assert tested == ["3.11", "3.11", "3.13", "3.13"]
    assert clone.version(".venv-3.13") == "3.13"


def test_one_python_that_fails_fails_them_all_after_the_others_had_their_turn(clone: Clone) -> None:
    clone.python("3.12", tests=1)
    clone.python("3.13")
    done = clone.make("test-pythons")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-3:] == ["Python 3.11: not found", "Python 3.12: FAILED", "Python 3.13: passed"]


def test_to_test_no_python_at_all_is_not_a_success(clone: Clone) -> None:
    assert clone.make("test-pythons").returncode == 2


@pytest.mark.parametrize("backend", ["cpu", "gpu", "bench"])
def test_a_lock_is_one_list_for_every_python(backend: str) -> None:
    lines = (ROOT / f"requirements/{backend}.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.+]*", line)] == []


def test_the_makefile_and_the_project_name_the_same_pythons() -> None:
    named = re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named is not None
    versions = named[1].split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lowest, (major, minor) = versions[0], versions[-1].split(".")
    assert project["project"]["requires-python"] == f">={lowest},<{major}.{int(minor) + 1}"
    assert project["tool"]["mypy"]["python_version"] == lowest
    assert project["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
