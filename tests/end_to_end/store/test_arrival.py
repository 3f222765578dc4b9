"""An answer that was given stays: neither an older archive nor a clock that was set back changes it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from rewriting_builders import DIGEST, everything, merge, put_answer, put_each, requests_of, storage_of
from store_builders import VOCAB, answer, make_request, open_cache, teacher_dir

from cache.disk.manifests import ARRIVAL_STEP_NS, read_manifest
from cache.records import TeacherRecord
from cache.upkeep.archives import export_archive, import_archive

YEAR_NS = 365 * 86_400 * 10**9
REQUEST = make_request([3, 4, 5], temperature=1.0)


def put_other(root: Path, *, seed: int) -> TeacherRecord:
    """One of several answers to the same request."""
    record, request = answer(REQUEST, seed=seed)
    assert open_cache(root).put([(record, request)], vocab=VOCAB) is not None
    return record


def redate(root: Path, created_ns: int) -> None:
    """Make the only segment one of another time."""
    (uuid,) = storage_of(root).names("segments")
    manifest = read_manifest(storage_of(root), uuid, identity=DIGEST)
    path = teacher_dir(root) / "manifests" / f"{uuid}.json"
    path.write_bytes(dataclasses.replace(manifest, created_ns=created_ns).to_json())


def order(root: Path) -> list[int]:
    found = storage_of(root).names("segments")
    return sorted(read_manifest(storage_of(root), uuid, identity=DIGEST).created_ns for uuid in found)


@pytest.mark.parametrize(
    "created_ns",
    [0, 1, 10**18, time.time_ns() - YEAR_NS, time.time_ns() + YEAR_NS, 2**63 - 1],
    ids=["0", "1", "2001", "a year ago", "in a year", "largest"],
)
def test_an_archive_changes_no_answer_that_was_given(tmp_path: Path, created_ns: int) -> None:
    theirs = put_other(tmp_path / "there", seed=2)
    redate(tmp_path / "there", created_ns)
    export_archive(storage_of(tmp_path / "there"), tmp_path / "a.tar", identity=DIGEST)
    mine = put_other(tmp_path / "here", seed=1)
    cache = open_cache(tmp_path / "here")
    view = cache.view([mine.key], dataset="d", k=8).digest
    assert import_archive(tmp_path / "here", tmp_path / "a.tar").rows == 1
    for window in (cache, open_cache(tmp_path / "here")):
        window.refresh()
        assert window.lookup([REQUEST]) == [mine.key]
        assert None not in window.get_many([theirs.key])
    merge(tmp_path / "here")
    assert open_cache(tmp_path / "here").lookup([REQUEST]) == [mine.key]
    assert open_cache(tmp_path / "here").view([mine.key], dataset="d", k=8).digest == view
    # What comes later is later, and no segment claims to be of a time that is still to come.
    put_other(tmp_path / "here", seed=3)
    assert open_cache(tmp_path / "here").lookup([REQUEST]) == [mine.key]
    assert max(order(tmp_path / "here")) < time.time_ns() + 10 * ARRIVAL_STEP_NS


def test_the_order_inside_an_archive_is_kept(tmp_path: Path) -> None:
    first = put_other(tmp_path / "there", seed=1)
    put_other(tmp_path / "there", seed=2)
    put_each(tmp_path / "there", [20, 21])
    merge(tmp_path / "there")
    export_archive(storage_of(tmp_path / "there"), tmp_path / "a.tar", identity=DIGEST)
    put_each(tmp_path / "here", [21, 22])
    import_archive(tmp_path / "here", tmp_path / "a.tar")
    assert open_cache(tmp_path / "here").lookup([REQUEST]) == [first.key]
    requests = requests_of([20, 21, 22])
    before = everything(open_cache(tmp_path / "here"), requests, [first.key])
    merge(tmp_path / "here")
    assert everything(open_cache(tmp_path / "here"), requests, [first.key]) == before


def test_what_two_archives_say_goes_by_which_came_first(tmp_path: Path) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        put_other(tmp_path / name, seed=seed)
        export_archive(storage_of(tmp_path / name), tmp_path / f"{name}.tar", identity=DIGEST)
    wanted = answer(REQUEST, seed=2)[0].key
    import_archive(tmp_path / "here", tmp_path / "new.tar")
    assert open_cache(tmp_path / "here").lookup([REQUEST]) == [wanted]
    import_archive(tmp_path / "here", tmp_path / "old.tar")
    assert open_cache(tmp_path / "here").lookup([REQUEST]) == [wanted]


@pytest.mark.parametrize("back_ns", [1, 10**9, 50 * YEAR_NS])
def test_a_clock_that_was_set_back_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_ns: int
) -> None:
    waiting = open_cache(tmp_path)
    mine = put_other(tmp_path, seed=1)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - back_ns)
    put_other(tmp_path, seed=2)
    assert open_cache(tmp_path).lookup([REQUEST]) == [mine.key]
    # Nor does a process that opened the cache when nothing was there, and never looked since.
    record, _ = answer(REQUEST, seed=3)
    waiting.put([(record, REQUEST)], vocab=VOCAB)
    waiting.refresh()
    assert waiting.lookup([REQUEST]) == [mine.key]
    merge(tmp_path)
    assert open_cache(tmp_path).lookup([REQUEST]) == [mine.key]
    assert len(set(order(tmp_path))) == len(order(tmp_path))


def test_only_manifests_that_are_new_are_read_for_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_each(tmp_path, [5, 6, 7])
    cache = open_cache(tmp_path)
    put_answer(tmp_path, 8)
    read: list[str] = []

    def counted(storage: object, uuid: str, *, identity: str) -> object:
        read.append(uuid)
        return read_manifest(storage, uuid, identity=identity)  # type: ignore[arg-type]

    monkeypatch.setattr("cache.library.read_manifest", counted)
    cache.put([answer(make_request([3, 4, 9]))], vocab=VOCAB)
    assert len(read) == 1
    cache.put([answer(make_request([3, 4, 10]))], vocab=VOCAB)
    assert len(read) == 1
