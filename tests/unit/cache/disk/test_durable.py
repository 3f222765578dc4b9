"""Files that appear whole, once, and leave nothing behind when they do not."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from cache.disk import durable
from cache.disk.durable import (
    LEFTOVER_S,
    UNFINISHED,
    large_file,
    link_exclusively,
    remove_entry,
    remove_leftovers,
    replace_file,
    write_new,
    write_tree,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_replacing_leaves_the_new_bytes_and_nothing_beside_them(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        replace_file(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content and names(tmp_path) == ["a"]


def test_a_replacement_that_fails_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "a", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("nameless", [True, False])
def test_a_large_file_has_its_name_only_when_it_is_whole(
    nameless: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:
        monkeypatch.setattr(durable, "_nameless", lambda _: None)
    path = tmp_path / "deep" / "a"
    with large_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and names(path.parent) == ["a"]
    with pytest.raises(RuntimeError), large_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"whole" and names(path.parent) == ["a"]


@pytest.mark.parametrize("refused", [None, errno.EPERM, errno.ENOTSUP])
def test_an_exclusive_name_is_given_once_with_and_without_hard_links(
    refused: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused is not None:

        def no_links(*_: object) -> None:
            raise OSError(refused, "no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    for number in (1, 2):
        write_new(tmp_path / f"source{number}", b"%d" % number)
    link_exclusively(tmp_path / "source1", tmp_path / "a")
    with pytest.raises(FileExistsError):
        link_exclusively(tmp_path / "source2", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_only_what_is_old_and_half_written_goes(tmp_path: Path) -> None:
    old = time.time() - LEFTOVER_S - 60
    for name, age in (
        (f".a.1{UNFINISHED}", old), (f".a.2{UNFINISHED}", None), (f".b.1{UNFINISHED}", old), ("a", old),
    ):  # fmt: skip
        (tmp_path / name).touch()
        if age is not None:
            os.utime(tmp_path / name, (age, age))
    remove_leftovers(tmp_path, of="a")
    assert names(tmp_path) == [f".a.2{UNFINISHED}", f".b.1{UNFINISHED}", "a"]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [f".a.2{UNFINISHED}", "a"]
    remove_leftovers(tmp_path / "nowhere")


def test_a_link_goes_alone_and_a_directory_with_all_that_is_in_it(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", [("deep/x", b"1"), ("y", b"2")])
    assert (tmp_path / "tree" / "deep" / "x").read_bytes() == b"1"
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    remove_entry(tmp_path / "link")
    assert names(tmp_path) == ["tree"]
    remove_entry(tmp_path / "tree")
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        remove_entry(tmp_path / "tree")
