"""Who holds a lock is alone; where a disk has no locks, the two ways to take one differ."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from orchestration.outputs.locks import take, take_if_possible


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_one_holds_it_until_it_is_closed(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    assert take(first, wait=False)
    assert not take(second, wait=False)
    assert not take_if_possible(second)
    os.close(first)
    assert take_if_possible(second)
    os.close(second)


def test_who_waits_has_it_in_the_end(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    assert take(first, wait=False)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(take(second, wait=True)))
    waiting.start()
    assert answers == []
    os.close(first)
    waiting.join(timeout=30)
    assert answers == [True]
    os.close(second)


def test_a_directory_can_be_held_too(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    assert take_if_possible(first) and not take_if_possible(second)
    for handle in (first, second):
        os.close(handle)


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    handle = opened(tmp_path / "lock")
    with pytest.raises(OSError, match="No locks"):
        take(handle, wait=True)
    assert not take_if_possible(handle)
    os.close(handle)
