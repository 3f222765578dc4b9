"""An object store as a place for a cache: the same promises, and copies that are fetched once."""

from __future__ import annotations

import pytest
from buckets import REQUESTS, fill, server, url
from storage_conformance import StorageConformance
from store_builders import TEACHER, answer, assert_same_text

from cache.disk.object_storage import ObjectStorage, copies_directory
from cache.disk.storage import NOTE_BYTES
from cache.store import TeacherCache
from configs.errors import ConfigError

__all__ = ["server", "url"]


class TestObjectStorage(StorageConformance):
    @pytest.fixture()
    def storage(self, url: str) -> ObjectStorage:
        return ObjectStorage(url)


def test_a_damaged_copy_is_fetched_again(url: str) -> None:
    keys = fill(url)
    assert None not in TeacherCache.open(url, TEACHER).get_many(keys)
    copies = [path for path in copies_directory().rglob("*") if path.is_file()]
    assert copies
    for path in copies:
        path.write_bytes(b"x" * path.stat().st_size)
    for found, request in zip(TeacherCache.open(url, TEACHER).get_many(keys), REQUESTS, strict=True):
        assert_same_text(found, answer(request)[0])


def test_a_read_object_is_not_fetched_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = fill(url)
    TeacherCache.open(url, TEACHER).get_many(keys)
    asked: list[str] = []
    read = ObjectStorage.read

    def counted(storage: ObjectStorage, name: str, *, at_most: int = NOTE_BYTES) -> bytes:
        asked.append(name)
        return read(storage, name, at_most=at_most)

    monkeypatch.setattr(ObjectStorage, "read", counted)
    assert None not in TeacherCache.open(url, TEACHER).get_many(keys)
    assert all(name == "identity.json" or name.startswith("manifests/") for name in asked)
    assert not any(name.endswith(".keys") for name in asked)


def test_a_service_that_does_not_answer_is_an_error_and_not_an_empty_cache(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("cache.disk.object_storage.RETRIES", 0)
    with pytest.raises(ConfigError, match="cannot be used as a cache"):
        TeacherCache.open(url, TEACHER)
