"""Copies of objects of a bucket: what stays, and what makes room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache.disk.copies import Copies, copies_directory, copies_room
from configs.errors import ConfigError

LARGEST = 1000


def copies(root: Path, *, room: int, place: str = "s3://bucket/cache") -> Copies:
    root.mkdir(exist_ok=True)
    return Copies(place, root=root, room=room)


def used(root: Path, name: str, *, seconds_ago: float) -> None:
    """Have a copy of any place look as if it had been used so long ago."""
    (path,) = root.rglob(name)
    then = path.stat().st_mtime - seconds_ago
    os.utime(path, (then, then))


def held(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


def taken(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_what_was_used_longest_ago_makes_room_whoever_copied_it(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    first, second = copies(root, room=250), copies(root, room=250, place="gs://another")
    first.keep("segments/a", b"a" * 100)
    second.keep("segments/b", b"b" * 100)
    used(root, "a", seconds_ago=200)
    used(root, "b", seconds_ago=300)
    # Reading is using.
    assert second.read("segments/b", at_most=LARGEST) == b"b" * 100
    first.keep("segments/c", b"c" * 100)
    assert held(root) == {"b", "c"}
    with pytest.raises(FileNotFoundError):
        first.read("segments/a", at_most=LARGEST)


def test_reading_parts_is_using_too(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    here = copies(root, room=250)
    here.keep("a", b"0123456789" * 10)
    here.keep("b", b"b" * 100)
    used(root, "a", seconds_ago=300)
    used(root, "b", seconds_ago=200)
    assert here.read_spans("a", [(1, 2), (98, 9)]) == [b"12", b"89"]
    here.keep("c", b"c" * 100)
    assert held(root) == {"a", "c"}


def test_the_total_stays_within_the_room(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    here = copies(root, room=1000)
    for number in range(50):
        here.keep(f"segments/{number}", bytes(90))
        assert taken(root) <= 1000 * 1.05


def test_what_is_larger_than_the_room_is_not_kept_and_removes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    here = copies(root, room=100)
    here.keep("a", b"a" * 90)
    here.keep("b", b"b" * 101)
    assert held(root) == {"a"}
    copies(root, room=0).keep("c", b"c")
    assert held(root) == {"a"}


def test_nothing_else_in_the_directory_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    here = copies(root, room=100)
    here.keep("a", b"a" * 90)
    (root / "mine").mkdir()
    (root / "mine/thesis.txt").write_bytes(bytes(500))
    (root / "notes.txt").write_bytes(bytes(500))
    here.keep("b", b"b" * 90)
    assert held(root) == {"b", "thesis.txt", "notes.txt"}


def test_the_room_and_the_place_are_those_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path))
    monkeypatch.delenv("STILLROOM_COPIES_GIB", raising=False)
    assert copies_directory() == tmp_path and copies_room() == 100 * 2**30
    monkeypatch.setenv("STILLROOM_COPIES_GIB", "0.5")
    assert copies_room() == 2**29
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("STILLROOM_COPIES_GIB", wrong)
        with pytest.raises(ConfigError, match=f"STILLROOM_COPIES_GIB={wrong} is not a number of GiB"):
            copies_room()
