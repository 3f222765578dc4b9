"""What every kind of storage must do, and what a cache below a URL does."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_server import new_url, object_server
from store_builders import OTHER_TEACHER, TEACHER, VOCAB, answer, assert_same_text, make_request

from cache.disk.object_storage import ObjectStorage, copies_directory
from cache.disk.storage import NOTE_BYTES, LocalStorage, Storage, list_teachers, open_storage
from cache.store import TeacherCache
from configs.errors import CacheError, ConfigError
from configs.places import absolute_root, is_url, parse_root
from configs.regular_files import UnreadableFileError

REQUESTS = [make_request([3, 4, number]) for number in range(5, 13)]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with object_server() as environment:
        yield environment


@pytest.fixture()
def url(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path / "copies"))
    return new_url()


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "directory":
        return LocalStorage(tmp_path / "place", create=True)
    return ObjectStorage(request.getfixturevalue("url"))


def test_what_was_created_is_read(storage: Storage) -> None:
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


def test_a_name_is_taken_once(storage: Storage) -> None:
    storage.create("manifests/a.json", b"first")
    with pytest.raises(FileExistsError):
        storage.create("manifests/a.json", b"second")
    assert storage.read("manifests/a.json") == b"first"
    storage.replace("pins/p.json", b"old")
    storage.replace("pins/p.json", b"new")
    assert storage.read("pins/p.json") == b"new"


def test_what_is_not_there_is_said_so(storage: Storage) -> None:
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


def test_a_segment_stands_under_its_name(storage: Storage) -> None:
    storage.create("staging/u/owner.json", b"{}")
    storage.create_segment("u", {"zarr.json": b"{}", "x/c/0": b"123"})
    assert dict(storage.sizes("segments/u")) == {"zarr.json": 2, "x/c/0": 3}


def test_nothing_half_written_is_listed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, create=True)
    (tmp_path / "manifests" / ".b.json.1.tmp").write_bytes(b"half")
    assert storage.names("manifests") == []
    assert list(storage.unfinished()) == ["manifests/.b.json.1.tmp"]


def fill(root: str) -> list[bytes]:
    answers = [answer(request) for request in REQUESTS]
    TeacherCache.open(root, TEACHER).put(answers, vocab=VOCAB)
    return [record.key for record, _ in answers]


def test_a_cache_below_a_url_answers_like_one_in_a_directory(url: str) -> None:
    keys = fill(url)
    cache = TeacherCache.open(url, TEACHER)
    assert cache.missing(REQUESTS, k=8).generate == ()
    for found, request in zip(cache.get_many(keys), REQUESTS, strict=True):
        assert_same_text(found, answer(request)[0])
    view = cache.view(keys, dataset="train", k=8)
    (block,) = pickle.loads(pickle.dumps(cache)).iter_blocks(view, [np.arange(len(keys))])
    assert [record.key for record in block] == keys
    assert cache.verify() == []
    assert list_teachers(url) == [TEACHER.digest()]
    with pytest.raises(CacheError, match="no cache of this teacher"):
        TeacherCache.open(url, OTHER_TEACHER, create=False)


def test_two_windows_on_a_bucket_see_each_others_commits(url: str) -> None:
    first, second = TeacherCache.open(url, TEACHER), TeacherCache.open(url, TEACHER)
    first.put([answer(REQUESTS[0])], vocab=VOCAB)
    second.put([answer(REQUESTS[1])], vocab=VOCAB)
    first.refresh()
    assert first.missing(REQUESTS[:2], k=8).generate == ()


def test_a_conflict_over_a_manifest_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TeacherCache.open(url, TEACHER)
    with cache.writer(vocab=VOCAB) as writer:
        record, _ = answer(REQUESTS[0])
        writer.add(record)
        with monkeypatch.context() as patch:
            # Somebody else takes every name a moment earlier.
            create = ObjectStorage.create

            def late(storage: ObjectStorage, name: str, data: bytes) -> None:
                if name.startswith("manifests/") and name.endswith(".json"):
                    create(storage, name, b"{}")
                create(storage, name, data)

            patch.setattr(ObjectStorage, "create", late)
            with pytest.raises(CacheError, match="not committed"):
                writer.commit()
        assert writer.pending_rows == 1
        assert writer.commit() is not None
    assert_same_text(TeacherCache.open(url, TEACHER).get_many([record.key])[0], record)


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


def test_damage_in_the_bucket_is_a_miss(url: str, tmp_path: Path) -> None:
    keys = fill(url)
    storage = open_storage(url, TEACHER.digest(), create=False)
    (uuid,) = storage.names("segments")
    name = f"segments/{uuid}/topk_ids/c/0/0"
    data = bytearray(storage.read(name))
    data[len(data) // 2] ^= 4
    storage.replace(name, bytes(data))
    cache = TeacherCache.open(url, TEACHER)
    assert cache.get_many(keys) == [None] * len(keys)
    assert [damage.name for damage in cache.verify()] == ["topk_ids/c/0/0"]
    fill(url)
    shutil.rmtree(tmp_path / "copies")
    assert None not in TeacherCache.open(url, TEACHER).get_many(keys)


def test_a_service_that_does_not_answer_is_an_error_and_not_an_empty_cache(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("cache.disk.object_storage.RETRIES", 0)
    with pytest.raises(ConfigError, match="cannot be used as a cache"):
        TeacherCache.open(url, TEACHER)


@pytest.mark.parametrize("text", ["s3:/bucket/x", "s3://", "ftp://host/x", "http://host/x", "S3://b/x"])
def test_a_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no place for a cache"):
        parse_root(text)


def test_roots_are_told_apart(tmp_path: Path) -> None:
    assert parse_root("s3://bucket/prefix/") == "s3://bucket/prefix"
    assert parse_root("data/cache") == Path("data/cache")
    assert is_url("gs://bucket/x")
    assert not is_url(tmp_path)
    assert absolute_root("s3://bucket/x") == "s3://bucket/x"
    assert absolute_root(Path("x")) == Path(os.getcwd()) / "x"
