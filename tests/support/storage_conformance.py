"""What every place for the objects of a cache must do; inherited by the tests of each kind."""

from __future__ import annotations

import pytest

from cache.disk.storage import Storage
from configs.regular_files import UnreadableFileError


class StorageConformance:
    """A subclass gives the fixture `storage`: an empty place."""

    def test_what_was_created_is_read(self, storage: Storage) -> None:
        storage.create("manifests/a.json", b"one")
        assert storage.read("manifests/a.json") == storage.fetch("manifests/a.json", at_most=3) == b"one"
        spans = [(0, 1), (1, 9), (7, 2)]
        assert storage.fetch_spans("manifests/a.json", spans) == [b"o", b"ne", b""]
        storage.forget_copy("manifests/a.json")
        assert storage.fetch_spans("manifests/a.json", spans) == [b"o", b"ne", b""]
        for ask in (storage.read, storage.fetch):
            with pytest.raises(UnreadableFileError, match="longer than the 2 bytes"):
                ask("manifests/a.json", at_most=2)
        storage.create("segments/s/x/c/0", b"12345")
        assert dict(storage.sizes("segments/s")) == {"x/c/0": 5}
        assert storage.names("manifests") == ["a.json"]
        assert storage.names("segments") == ["s"]
        assert storage.names("nothing") == []
        assert dict(storage.sizes("nothing")) == {}

    def test_a_name_is_taken_once(self, storage: Storage) -> None:
        storage.create("manifests/a.json", b"first")
        with pytest.raises(FileExistsError):
            storage.create("manifests/a.json", b"second")
        assert storage.read("manifests/a.json") == b"first"
        storage.replace("pins/p.json", b"old")
        storage.replace("pins/p.json", b"new")
        assert storage.read("pins/p.json") == b"new"

    def test_what_is_not_there_is_said_so(self, storage: Storage) -> None:
        for ask in (storage.read, storage.fetch):
            with pytest.raises(FileNotFoundError):
                ask("manifests/none.json", at_most=9)
        with pytest.raises(FileNotFoundError):
            storage.fetch_spans("manifests/none.json", [(0, 1)])
        storage.delete("manifests/none.json")
        storage.delete_folder("segments/none")
        storage.create("segments/s/x", b"1")
        storage.create("segments/s/y/z", b"2")
        storage.create("segments/t/x", b"3")
        storage.delete("segments/t/x")
        storage.delete_folder("segments/s")
        assert dict(storage.sizes("segments")) == {}

    def test_a_segment_stands_under_its_name(self, storage: Storage) -> None:
        storage.create("staging/u/owner.json", b"{}")
        storage.create_segment("u", {"zarr.json": b"{}", "x/c/0": b"123"})
        assert dict(storage.sizes("segments/u")) == {"zarr.json": 2, "x/c/0": 3}
