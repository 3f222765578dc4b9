"""The files of one process: written, described, on disk."""

from __future__ import annotations

import gc
import hashlib
import weakref
from pathlib import Path

import pytest

from configs.errors import TrainingError
from student_train.training import shares
from student_train.training.shares import ShareFile, put_on_disk


def test_files_are_described_by_size_and_digest_whoever_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "written").write_bytes(b"before")
    files = [
        ShareFile(tmp_path / "state" / "later", lambda path: path.write_bytes(b"meanwhile")),
        ShareFile(tmp_path / "written"),
    ]
    described = put_on_disk(files, staging=tmp_path, final=tmp_path / "final")
    assert described == {
        "state/later": (9, hashlib.sha256(b"meanwhile").hexdigest()),
        "written": (6, hashlib.sha256(b"before").hexdigest()),
    }


def test_what_was_written_is_held_no_longer(tmp_path: Path) -> None:
    class Copy:
        content = b"x"

    copy = Copy()
    held, alive = weakref.ref(copy), []

    def write(path: Path, what: Copy = copy) -> None:
        path.write_bytes(what.content)

    def look(path: Path) -> None:
        gc.collect()
        alive.append(held() is not None)
        path.touch()

    files = [ShareFile(tmp_path / "copy", write), ShareFile(tmp_path / "next", look)]
    del copy, write
    put_on_disk(files, staging=tmp_path, final=tmp_path / "final")
    assert alive == [False]


def test_a_disk_that_keeps_something_else_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "sync_file", lambda path: path.write_bytes(b"other"))
    with pytest.raises(
        TrainingError, match=r"step-7 was damaged while it was written \(file does not match its digest"
    ):
        put_on_disk(
            [ShareFile(tmp_path / "file", lambda path: path.write_bytes(b"bytes"))],
            staging=tmp_path,
            final=tmp_path / "step-7",
        )
