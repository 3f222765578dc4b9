"""A page of docs/ that says how something is added, followed word for word.

A fence below a line that ends in "`path`:" is that file, or, of kind `diff`, the lines to add to it, between some that
stand there; one of kind `console` holds commands after `$ `, and below
each what it prints: those lines have to come in this order, and `...` stands for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.model_files import CARD
from configs.models import ModelSource
from orchestration.inputs.models import materialise

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration", "tests/support")
SHAPE = {
    "layers": 4,
    "hidden": 64,
    "heads": 2,
    "kv_heads": 1,
    "mlp": 128,
    "vocab": 272,
    "tied_embeddings": True,
    "max_positions": 512,
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """A file to write or (`changes`) to add lines to; without a path, commands to run."""

    path: str | None
    text: str
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and the lines that it is said to print."""

    line: str
    printed: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """What docs/<page> tells its reader to do, in order; fences of other kinds are only looked at."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        above = text[: fence.start()].rstrip().rpartition("\n")[2]
        named = re.search(r"`([^`\s]+)`:$", above)
        if fence[1] == "console":
            found.append(Step(None, fence[2]))
        elif named is not None:
            found.append(Step(named[1], fence[2], changes=fence[1] == "diff"))
    assert found, f"docs/{page} tells nothing to do"
    return found


def commands(block: str) -> list[Command]:
    """The commands of a console block."""
    told: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            told.append((line[2:], []))
        elif line.strip():
            told[-1][1].append(line.strip())
    return [Command(line, tuple(printed)) for line, printed in told]


def copy_of_the_code(place: Path) -> Path:
    """The packages, to be changed."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, place / name)
    return place


def small_model(directory: Path) -> Path:
    """A directory as `save_pretrained` writes it, without a card: random weights and a byte tokenizer."""
    source = ModelSource.model_validate({"random": SHAPE, "seed": 3})
    made = materialise(source, models_root=directory.parent / "made").directory
    return Path(shutil.copytree(made, directory, ignore=shutil.ignore_patterns(CARD)))


def write(step: Step, *, place: Path) -> None:
    """Write a file, or add lines to it."""
    assert step.path is not None
    path = place / step.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_with_added(path, step.text) if step.changes else step.text, encoding="utf-8")


def _with_added(path: Path, change: str) -> str:
    """The text of a file with the lines that begin with `+`; the others stand there already, once."""
    lines = change.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path} does not hold these lines once:\n{before}"
    return text.replace(before, "".join(line[1:] for line in lines))


def run_in_shell(command: Command, *, place: Path) -> str:
    """What a command prints that is run in `place`, where its code is imported from if there is any."""
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "160"}
    done = subprocess.run(
        command.line, shell=True, cwd=place, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{command.line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def assert_printed(command: Command, printed: str) -> None:
    """The lines below a command are what it printed, in this order."""
    rest = _plain(printed)
    for line in command.printed:
        for part in filter(None, map(_plain, line.split("..."))):
            assert part in rest, f"{command.line} does not print {part!r} there:\n{printed}"
            rest = rest.partition(part)[2]


def follow(page: str, *, place: Path, run: Callable[[Command], str | None]) -> list[str]:
    """Do all that a page says; `run` gives what a command printed, or None where it left it out.

    Returns the commands that were run.
    """
    ran = []
    for step in steps(page):
        if step.path is not None:
            write(step, place=place)
            continue
        for command in commands(step.text):
            printed = run(command)
            if printed is not None:
                assert_printed(command, printed)
                ran.append(command.line)
    return ran


def _plain(text: str) -> str:
    """Without what draws a table, and with one blank for many."""
    return " ".join(re.sub("[─-╿]", " ", text).split())
