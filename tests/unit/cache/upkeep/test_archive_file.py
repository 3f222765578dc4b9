"""An archive as a file."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from archive_builders import assert_nothing_came, members
from rewriting_builders import DIGEST, put_each, storage_of

from cache.upkeep.archives import export_archive, import_archive
from configs.errors import CacheError

PROMPTS = [5, 6, 7]


def export(root: Path, path: Path) -> Path:
    export_archive(storage_of(root), path, identity=DIGEST)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    put_each(tmp_path / "here", PROMPTS)
    return export(tmp_path / "here", tmp_path / "a.tar")


def test_an_archive_is_the_same_bytes_twice(tmp_path: Path, archive: Path) -> None:
    assert export(tmp_path / "here", tmp_path / "b.tar").read_bytes() == archive.read_bytes()


def test_every_cut_is_noticed(tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    last = max(member.offset for member, _ in members(archive))
    cuts = [0, 1, 511, 512, 600, 1024, *range(4000, last, last // 40), last, last + 100, last + 512]
    for cut in cuts:
        archive.write_bytes(whole[:cut])
        with pytest.raises(CacheError, match="not imported"):
            import_archive(tmp_path / "there", archive)
        assert_nothing_came(tmp_path / "there")


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot be read"):
        import_archive(tmp_path / "there", tmp_path / "absent.tar")
    (tmp_path / "text").write_text("no tar at all" * 100)
    with pytest.raises(CacheError, match="not a whole tar"):
        import_archive(tmp_path / "there", tmp_path / "text")
    with tarfile.open(tmp_path / "packed", "w:gz") as file:
        file.addfile(tarfile.TarInfo("identity.json"))
    with pytest.raises(CacheError, match="not a whole tar"):
        import_archive(tmp_path / "there", tmp_path / "packed")
