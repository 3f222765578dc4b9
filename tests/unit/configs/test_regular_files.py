from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.regular_files import UnreadableFileError, open_regular, parse_json, read_json, read_regular


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x00content")
    assert read_regular(path, at_most=8) == b"\x00content"
    with open_regular(path) as stream:
        assert stream.read() == b"\x00content"


def test_a_file_that_is_too_long_is_refused_and_says_how_long_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(UnreadableFileError, match="1,000 bytes"):
        read_regular(path, at_most=1000)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("links", ["refuse", "follow"])
def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path, links: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    # Unix sockets have short names, and pytest's directories long ones.
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.getcwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket")
        finally:
            os.chdir(where)
        for name, kind in (("fifo", "named pipe"), ("folder", "directory"), ("socket", "socket")):
            with pytest.raises(UnreadableFileError, match=kind):
                read_regular(tmp_path / name, at_most=10, links=links)  # type: ignore[arg-type]
    with pytest.raises(UnreadableFileError, match="device"):
        read_regular(Path("/dev/zero"), at_most=10, links=links)  # type: ignore[arg-type]


@pytest.mark.timeout(10)
def test_links_are_refused_or_followed_to_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UnreadableFileError, match="symbolic link"):
        read_regular(tmp_path / "link", at_most=10)
    assert read_regular(tmp_path / "link", at_most=10, links="follow") == b"1"
    with pytest.raises(UnreadableFileError, match="device"):
        read_regular(tmp_path / "endless", at_most=10, links="follow")
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "dangling", at_most=10, links="follow")


def test_json_that_python_cannot_hold_is_said_as_such(tmp_path: Path) -> None:
    for content, reason in (
        (b"[" * 100_000, "nested too deep"),
        (b"9" * 10_000, "not valid JSON"),
        (b"\xff{}", "byte 0 is not UTF-8"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
    ):
        path = tmp_path / "x.json"
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match=reason) as caught:
            read_json(path)
        assert str(path) in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(content: bytes) -> None:
    try:
        parsed = parse_json(content, origin="x")
    except UnreadableFileError:
        return
    assert json.dumps(parsed) is not None
