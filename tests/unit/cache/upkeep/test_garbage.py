from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from garbage_builders import DAY, removed, sweep
from rewriting_builders import DIGEST, StoppingStorage, everything, killed_at, names, put_each, requests_of, storage_of
from store_builders import VOCAB, answer, make_record, make_request, open_cache, teacher_dir

from cache.disk.failpoints import FAILPOINTS
from cache.disk.object_storage import ObjectStorage
from cache.disk.owners import Owner
from cache.disk.storage import Storage
from cache.pinning import pin_view, touch_pin
from cache.pins import read_pins
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import compact
from configs.errors import CacheError


def age(path: Path, seconds: float) -> None:
    """Make a file or all of a directory older."""
    then = time.time() - seconds
    for place in [path, *path.rglob("*")]:
        os.utime(place, (then, then))


def commit(root: Path) -> None:
    open_cache(root).put([answer(make_request([3, 4, 99]))], vocab=VOCAB)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_what_a_killed_writer_left_goes(tmp_path: Path, failpoint: str) -> None:
    records = put_each(tmp_path, [5, 6])
    killed_at(failpoint, lambda: commit(tmp_path))
    committed = failpoint == "segment-after-manifest"
    requests, keys = requests_of([5, 6, 99]), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    report = sweep(tmp_path)
    assert any(name.startswith("staging/") for name in removed(report))
    assert names(tmp_path, "staging") == []
    assert names(tmp_path, "segments") == names(tmp_path, "manifests", suffix=".json")
    assert names(tmp_path, "segments") == names(tmp_path, "manifests", suffix=".keys")
    assert len(names(tmp_path, "segments")) == 2 + committed
    assert everything(open_cache(tmp_path), requests, keys) == before
    assert sweep(tmp_path).removed == ()


def test_work_of_the_living_stays(tmp_path: Path) -> None:
    writer = open_cache(tmp_path).writer(vocab=VOCAB)
    writer.add(answer(make_request([3, 4, 5]))[0])
    (name,) = names(tmp_path, "staging")
    # As far as a writer comes before its manifest.
    (teacher_dir(tmp_path) / "segments" / name).mkdir()
    (teacher_dir(tmp_path) / "segments" / name / "zarr.json").write_text("{}")
    (teacher_dir(tmp_path) / "manifests" / f"{name}.keys").write_text("keys")
    age(teacher_dir(tmp_path), 40 * DAY)
    assert sweep(tmp_path).removed == ()
    shutil.rmtree(teacher_dir(tmp_path) / "segments" / name)
    (teacher_dir(tmp_path) / "manifests" / f"{name}.keys").unlink()
    assert writer.commit() is not None
    assert sweep(tmp_path).removed == ()


def test_another_machine_has_a_day_to_be_heard_of(tmp_path: Path) -> None:
    open_cache(tmp_path)
    for name, heard in (("late", 2 * DAY), ("recent", 0.5 * DAY)):
        owner = dataclasses.replace(Owner.here(), boot_id="another", heartbeat=time.time() - heard)
        storage_of(tmp_path).create(f"staging/{name}/owner.json", owner.to_json())
        storage_of(tmp_path).create(f"segments/{name}/zarr.json", b"{}")
    assert removed(sweep(tmp_path)) == {"staging/late/", "segments/late/"}


@pytest.mark.parametrize("note", [None, b"", b"[]", b'{"pid": 1}', b"\xff"])
def test_work_without_a_readable_owner_has_to_be_old(tmp_path: Path, note: bytes | None) -> None:
    open_cache(tmp_path)
    place = teacher_dir(tmp_path) / "staging" / "somebody"
    place.mkdir()
    if note is not None:
        (place / "owner.json").write_bytes(note)
    assert sweep(tmp_path).removed == ()
    age(place, 2 * DAY)
    assert removed(sweep(tmp_path)) == {"staging/somebody/"}


def test_a_writer_that_begins_during_a_collection_keeps_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole commit at every single listing of the collection."""
    open_cache(tmp_path)
    writers = [open_cache(tmp_path) for _ in range(40)]
    storage = storage_of(tmp_path)
    listing, asked = storage.names, []

    def interrupted(folder: str) -> list[str]:
        found = listing(folder)
        writers[len(asked)].put([answer(make_request([3, 4, len(asked)]))], vocab=VOCAB)
        asked.append(folder)
        return found

    monkeypatch.setattr(storage, "names", interrupted)
    assert collect_garbage(storage, identity=DIGEST, dry_run=False, grace_s=0.0, silent_s=0.0).removed == ()
    assert len(asked) > 5
    assert open_cache(tmp_path).stats().records == len(asked)


def test_half_written_files_go_when_they_are_old(tmp_path: Path) -> None:
    open_cache(tmp_path)
    left = [teacher_dir(tmp_path) / name for name in (".identity.json.1.tmp", "manifests/.a.json.x.tmp")]
    for path in left:
        path.write_text("half")
    assert sweep(tmp_path).removed == ()
    for path in left:
        age(path, 2 * DAY)
    assert removed(sweep(tmp_path)) == {str(path.relative_to(teacher_dir(tmp_path))) for path in left}


def test_replaced_and_damaged_segments_go_after_their_grace(tmp_path: Path) -> None:
    put_each(tmp_path, [5, 6])
    first, second = names(tmp_path, "segments")
    now = time.time()
    storage_of(tmp_path).create(f"tombstones/{first}.json", json.dumps({"time": now - 7200}).encode())
    storage_of(tmp_path).create(f"quarantine/{second}.json", json.dumps({"time": now - 60}).encode())
    parts = {"manifests/{}.json", "manifests/{}.keys", "segments/{}/"}
    assert removed(sweep(tmp_path)) == {part.format(first) for part in parts} | {f"tombstones/{first}.json"}
    report = sweep(tmp_path, grace_s=30.0)
    assert removed(report) == {part.format(second) for part in parts} | {f"quarantine/{second}.json"}
    assert [item.name.partition("/")[0] for item in report.removed] == [
        "manifests",
        "manifests",
        "segments",
        "quarantine",
    ]


@pytest.mark.parametrize("marker", [b"", b"{}", b'{"time": "x"}'])
def test_a_mark_that_cannot_be_read_is_as_old_as_its_file(tmp_path: Path, marker: bytes) -> None:
    put_each(tmp_path, [5])
    (uuid,) = names(tmp_path, "segments")
    storage_of(tmp_path).create(f"tombstones/{uuid}.json", marker)
    assert sweep(tmp_path).removed == ()
    age(teacher_dir(tmp_path) / "tombstones", DAY)
    assert len(sweep(tmp_path).removed) == 4


def test_a_collection_that_stops_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6, 7])
    requests, keys = requests_of([5, 6, 7]), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    shutil.rmtree(teacher_dir(tmp_path) / "pins")
    compact(storage_of(tmp_path), identity=DIGEST)
    steps = len(sweep(tmp_path, dry_run=True, grace_s=-1.0).removed)
    assert steps == 12
    for stop in range(steps):
        root = tmp_path / f"copy{stop}"
        shutil.copytree(teacher_dir(tmp_path), teacher_dir(root))
        storage = StoppingStorage(teacher_dir(root), after=stop)
        with pytest.raises(CacheError, match="disk"):
            collect_garbage(storage, identity=DIGEST, dry_run=False, grace_s=-1.0)
        assert everything(open_cache(root), requests, keys) == before
        shutil.rmtree(teacher_dir(root) / "pins")
        sweep(root, grace_s=-1.0)
        assert len(names(root, "segments")) == 1
        assert names(root, "tombstones") == []
        assert open_cache(root).verify() == []
        shutil.rmtree(root)


def test_a_view_that_follows_its_rows_keeps_nothing(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6, 7])
    view = open_cache(tmp_path).view([record.key for record in records[:2]], dataset="d", k=8)
    compact(storage_of(tmp_path), identity=DIGEST)
    assert sweep(tmp_path, grace_s=-1.0).kept == ()
    assert not set(view.segments) & set(names(tmp_path, "segments"))
    ((first, second),) = open_cache(tmp_path).iter_blocks(view, [np.arange(2)])
    assert [first.key, second.key] == [record.key for record in records[:2]]


def test_a_merge_that_drops_a_row_leaves_it_to_its_view(tmp_path: Path) -> None:
    (poor,) = put_each(tmp_path, [5])
    view = open_cache(tmp_path).view([poor.key], dataset="d", k=8)
    fuller = make_record(poor.token_ids.tolist(), prompt_len=poor.prompt_len, k=9, finish=poor.finish)
    open_cache(tmp_path).put([fuller], vocab=VOCAB)
    compact(storage_of(tmp_path), identity=DIGEST)
    assert set(view.segments) <= set(sweep(tmp_path, grace_s=-1.0).kept) | set(names(tmp_path, "segments"))
    ((found,),) = open_cache(tmp_path).iter_blocks(view, [np.arange(1)])
    assert found.k == 8


def test_a_merge_that_drops_a_row_leaves_it_to_a_view_that_followed_it(tmp_path: Path) -> None:
    """Merged and collected, so that the pin's own segments are gone; then superseded, merged and collected again."""
    records = put_each(tmp_path, [5, 6])
    view = open_cache(tmp_path).view([record.key for record in records], dataset="d", k=8)
    compact(storage_of(tmp_path), identity=DIGEST)
    sweep(tmp_path, grace_s=-1.0)
    for poor in records:
        fuller = make_record(poor.token_ids.tolist(), prompt_len=poor.prompt_len, k=9, finish=poor.finish)
        open_cache(tmp_path).put([fuller], vocab=VOCAB)
    compact(storage_of(tmp_path), identity=DIGEST)
    sweep(tmp_path, grace_s=-1.0)
    ((first, second),) = open_cache(tmp_path).iter_blocks(view, [np.arange(2)])
    assert [first.k, second.k] == [8, 8]


def test_a_pinned_view_of_prefixes_keeps_its_segments_until_nobody_uses_it(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6, 7])
    cache = open_cache(tmp_path)
    view = cache.view([record.key for record in records[:2]], dataset="d", k=8)
    pin_view(storage_of(tmp_path), view, cut=1)
    compact(storage_of(tmp_path), identity=DIGEST)
    report = sweep(tmp_path, grace_s=-1.0)
    assert set(report.kept) == set(view.segments)
    assert len(names(tmp_path, "segments")) == 3
    # Pinned again where its rows stand now, by somebody who came later: the first reader goes on.
    again = open_cache(tmp_path).view([record.key for record in records[:2]], dataset="d", k=8)
    pin_view(storage_of(tmp_path), again, cut=1)
    assert again.digest == view.digest
    assert again.segments != view.segments
    assert set(sweep(tmp_path, grace_s=-1.0).kept) == set(view.segments)
    (pin,) = read_pins(storage_of(tmp_path))
    assert (pin.rows, pin.tokens, pin.response_tokens, pin.k, pin.segments) == (2, 16, 10, 8, again.segments)
    late = collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0, pin_days=0.0)
    assert {f"pins/{view.digest}.json", f"pins/{view.digest}.npz"} <= removed(late)
    assert (len(names(tmp_path, "segments")), names(tmp_path, "pins")) == (1, [])


def test_a_reader_beside_a_merge_loses_nothing_that_the_merge_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader looks at its pin, the merge notes where the rows go, and only then the reader says that it reads."""
    records = put_each(tmp_path, [5, 6])
    view = open_cache(tmp_path).view([record.key for record in records], dataset="d", k=8)
    storage = storage_of(tmp_path)
    replace_object = storage.replace

    def late(name: str, data: bytes) -> None:
        monkeypatch.setattr(storage, "replace", replace_object)
        compact(storage_of(tmp_path), identity=DIGEST)
        replace_object(name, data)

    monkeypatch.setattr(storage, "replace", late)
    touch_pin(storage, view.digest)
    (pin,) = read_pins(storage)
    merged = set(names(tmp_path, "segments")) - set(view.segments)
    assert set(pin.followed) == merged and len(merged) == 1
    sweep(tmp_path, grace_s=-1.0)
    for poor in records:
        fuller = make_record(poor.token_ids.tolist(), prompt_len=poor.prompt_len, k=9, finish=poor.finish)
        open_cache(tmp_path).put([fuller], vocab=VOCAB)
    compact(storage_of(tmp_path), identity=DIGEST)
    sweep(tmp_path, grace_s=-1.0)
    ((first, second),) = open_cache(tmp_path).iter_blocks(view, [np.arange(2)])
    assert [first.k, second.k] == [8, 8]


def test_claims_of_the_dead_go(tmp_path: Path) -> None:
    open_cache(tmp_path)
    here = Owner.here()
    gone = dataclasses.replace(here, start_ticks=here.start_ticks + 1)
    for number, owner in ((1, gone), (2, here)):
        note = {"owner": dataclasses.asdict(owner), "claim": "x", "k": 8}
        storage_of(tmp_path).create(f"claims/{number:08d}.keys", bytes(64))
        storage_of(tmp_path).create(f"claims/{number:08d}.json", json.dumps(note).encode())
    storage_of(tmp_path).create("claims/00000003.keys", bytes(32))
    report = sweep(tmp_path)
    assert [item.name for item in report.removed] == ["claims/00000001.json", "claims/00000001.keys"]
    age(teacher_dir(tmp_path) / "claims", 2 * DAY)
    assert removed(sweep(tmp_path)) == {"claims/00000003.keys"}


def test_an_object_store_is_swept_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path / "copies"))
    put_each(tmp_path, [5, 6])
    killed_at("segment-before-manifest", lambda: commit(tmp_path))
    storage: Storage = ObjectStorage(f"file://{teacher_dir(tmp_path)}")
    compact(storage, identity=DIGEST)
    report = collect_garbage(storage, identity=DIGEST, dry_run=False, grace_s=-1.0)
    assert len(names(tmp_path, "manifests", suffix=".json")) == 1
    assert len([item for item in report.removed if item.name.startswith("segments/")]) == 3
    assert open_cache(tmp_path).stats().records == 2
    assert storage.changed("nothing") is None
    assert storage.unfinished() == {}
    assert abs((storage.changed("manifests") or 0) - time.time()) < 3600
