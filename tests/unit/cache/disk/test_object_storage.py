"""An object store as a place for a cache: the same promises, and copies that are fetched once."""

from __future__ import annotations

import os

import pytest
from buckets import REQUESTS, fill, server, url
from obstore import Bytes
from storage_conformance import StorageConformance
from store_builders import TEACHER, answer, assert_same_text

from cache.disk.copies import copies_directory
from cache.disk.object_storage import ObjectStorage
from cache.disk.storage import NOTE_BYTES, Span
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


@pytest.mark.parametrize(("size", "parts", "length"), [(1001, 8, 126), (4321, 8, 541), (8001, 16, 501)])
def test_a_large_object_comes_in_whole_rounds_of_parts_and_is_the_same(
    size: int, parts: int, length: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.disk.object_storage.PART_BYTES", 1000)
    asked: list[Span] = []
    part = ObjectStorage._part

    def counted(storage: ObjectStorage, name: str, span: Span) -> Bytes:
        asked.append(span)
        return part(storage, name, span)

    monkeypatch.setattr(ObjectStorage, "_part", counted)
    data = os.urandom(size)
    ObjectStorage(url).create("segments/a/x", data)
    assert ObjectStorage(url).fetch("segments/a/x", at_most=size) == data
    starts = range(0, size, length)
    assert sorted(asked) == [(start, min(length, size - start)) for start in starts] and len(starts) == parts
    # The second time it is here.
    assert ObjectStorage(url).fetch("segments/a/x", at_most=size) == data and len(asked) == parts


def test_a_cache_larger_than_the_room_for_copies_is_read_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(url)
    monkeypatch.setenv("STILLROOM_COPIES_GIB", "0.000001")
    for _ in range(2):
        for found, request in zip(TeacherCache.open(url, TEACHER).get_many(keys), REQUESTS, strict=True):
            assert_same_text(found, answer(request)[0])
    assert sum(path.stat().st_size for path in copies_directory().rglob("*") if path.is_file()) <= 1074


def test_of_an_object_that_had_to_make_room_parts_alone_are_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ObjectStorage(url)
    storage.create("segments/a/x", b"0123456789")
    assert storage.fetch_spans("segments/a/x", [(2, 3)]) == [b"234"]
    storage.forget_copy("segments/a/x")
    monkeypatch.setattr(ObjectStorage, "read", None)
    assert storage.fetch_spans("segments/a/x", [(2, 3), (8, 5), (10, 1)]) == [b"234", b"89", b""]


def test_a_service_that_does_not_answer_is_an_error_and_not_an_empty_cache(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("cache.disk.object_storage.RETRIES", 0)
    with pytest.raises(ConfigError, match="cannot be used as a cache"):
        TeacherCache.open(url, TEACHER)
