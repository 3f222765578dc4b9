"""A directory that is made once is whole or not there, and what killed runs left goes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.inputs.made_once import STAGING_IDLE_S, make_once


def write(folder: Path) -> None:
    (folder / "file").write_text("whole")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    target = make_once(tmp_path / "models" / "a", write)
    assert (target / "file").read_text() == "whole"
    assert make_once(target, lambda _: pytest.fail("made twice")) == target
    assert [path.name for path in target.parent.iterdir()] == ["a"]


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "a", killed)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_the_same_the_first_holds(tmp_path: Path) -> None:
    def overtaken(folder: Path) -> None:
        write(folder)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").write_text("of the other")

    assert (make_once(tmp_path / "a", overtaken) / "file").read_text() == "of the other"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_disk_without_locks_keeps_what_may_be_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    old = tmp_path / "b.0123.staging"
    old.mkdir()
    os.utime(old, (0, 0))
    assert (make_once(tmp_path / "a", write) / "file").read_text() == "whole"
    assert old.exists()


def test_what_killed_runs_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    dead, living, young = (tmp_path / f"{name}.0123.staging" for name in ("dead", "living", "young"))
    for staging in (dead, living, young):
        (staging / "deeper").mkdir(parents=True)
    long_ago = time.time() - 2 * STAGING_IDLE_S
    for staging in (dead, living):
        os.utime(staging, (long_ago, long_ago))
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()", living],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        make_once(tmp_path / "a", write)
        assert not dead.exists() and living.exists() and young.exists()
    finally:
        holder.kill()
        holder.wait()
    os.utime(living, (long_ago, long_ago))
    make_once(tmp_path / "b", write)
    assert not living.exists() and young.exists()
