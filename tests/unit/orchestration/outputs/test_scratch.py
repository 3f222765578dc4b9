"""Temporary directories of the dead are swept, and nobody else's."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestration.outputs.scratch import ALIVE, PREFIX, scratch_directory, sweep

ROOT = Path(__file__).resolve().parents[4]

KILLED = """
import os, signal
from orchestration.outputs.scratch import scratch_directory
with scratch_directory("plan") as directory:
    (directory / "model").symlink_to("/")
    print(directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=told, capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert left.is_dir() and left.name.startswith(f"{PREFIX}plan-")
    with scratch_directory("plan") as first, scratch_directory("plan") as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert list(tmp_path.iterdir()) == [] and Path("/").is_dir()


def _directory(place: Path, name: str) -> Path:
    directory = place / f"{PREFIX}{name}"
    directory.mkdir(mode=0o700)
    return directory


def test_only_directories_of_dead_runs_are_swept(tmp_path: Path) -> None:
    dead, living, young = (_directory(tmp_path, name) for name in ("dead", "living", "young"))
    (dead / ALIVE).touch()
    (dead / "token").write_text("x")
    with (living / ALIVE).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [living, young]


@pytest.mark.timeout(20)
def test_what_is_no_file_never_holds_a_start_up(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer for ever."""
    pipe, folder, link, gone = (_directory(tmp_path, name) for name in ("pipe", "folder", "link", "gone"))
    os.mkfifo(pipe / ALIVE)
    (folder / ALIVE).mkdir()
    (link / ALIVE).symlink_to("/dev/zero")
    (gone / ALIVE).symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / f"{PREFIX}itself")
    precious = _directory(tmp_path, "precious").rename(tmp_path / "precious")
    (precious / ALIVE).touch()
    (tmp_path / f"{PREFIX}led-astray").symlink_to(precious)
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert (precious / ALIVE).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make directories of somebody else")
def test_directories_of_others_are_left_alone(tmp_path: Path) -> None:
    theirs = _directory(tmp_path, "theirs")
    (theirs / ALIVE).touch()
    os.chown(theirs, 12345, 12345)
    sweep(tmp_path)
    assert theirs.exists()
