from __future__ import annotations

from pathlib import Path

import pytest
from storage_conformance import StorageConformance

from cache.disk.local_storage import LocalStorage


class TestLocalStorage(StorageConformance):
    @pytest.fixture()
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(tmp_path / "place", create=True)


def test_nothing_half_written_is_listed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, create=True)
    (tmp_path / "manifests" / ".b.json.1.tmp").write_bytes(b"half")
    assert storage.names("manifests") == []
    assert list(storage.unfinished()) == ["manifests/.b.json.1.tmp"]
