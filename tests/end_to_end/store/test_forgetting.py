from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rewriting_builders import (
    DIGEST,
    forked,
    killed_at,
    merge,
    names,
    put_each,
    requests_of,
    scored_again,
    storage_of,
    sweep,
    wait_for,
)
from store_builders import VOCAB, flip_bit, open_cache, teacher_dir

from cache.disk.failpoints import REWRITE_FAILPOINTS
from cache.pins import read_pins
from cache.upkeep import rewriting
from cache.upkeep.rewriting import forget
from cache.upkeep.searching import find_matches

PROMPTS = list(range(5, 11))


def test_processes_that_forget_and_merge_at_once(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    gone = [record.key for record in records[:3]]
    work = [lambda key=key: forget(storage_of(tmp_path), identity=DIGEST, keys=[key]) for key in gone]
    wait_for([forked(task) for task in (*work, lambda: merge(tmp_path))])
    cache = open_cache(tmp_path)
    assert [record is None for record in cache.get_many([r.key for r in records])] == [True] * 3 + [False] * 3
    merge(tmp_path)
    sweep(tmp_path)
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == sorted(
        record.key for record in records[3:]
    )


def test_a_merge_does_not_bring_back_what_is_forgotten_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = put_each(tmp_path, PROMPTS)
    replace = rewriting.replace_segments

    def overtaken(*args: object, **named: object) -> object:
        monkeypatch.setattr(rewriting, "replace_segments", replace)
        forget(storage_of(tmp_path), identity=DIGEST, keys=[records[2].key])
        return replace(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rewriting, "replace_segments", overtaken)
    merge(tmp_path)
    assert open_cache(tmp_path).get_many([records[2].key]) == [None]
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == sorted(
        record.key for record in records if record is not records[2]
    )


def test_forgetting_removes_every_trace(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    open_cache(tmp_path).put([scored_again(record, k=8) for record in records], vocab=VOCAB)
    requests = requests_of(PROMPTS, limits=[8])
    shutil.rmtree(teacher_dir(tmp_path) / "pins")
    merge(tmp_path)
    reader = open_cache(tmp_path)
    gone, stay = [record.key for record in records[:2]], [record.key for record in records[2:]]
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=gone)
    assert (report.rows, report.generations, report.kept, report.unreadable) == (2, 2, (), ())
    for cache in (reader, open_cache(tmp_path)):
        cache.refresh()
        assert cache.missing(requests, k=8).generate == (0, 1)
        assert cache.get_many(gone) == [None, None]
        assert None not in cache.get_many(stay)
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == sorted(stay)
    for folder in ("tombstones", "manifests", "segments"):
        assert not any(uuid in name for name in names(tmp_path, folder) for uuid in report.deleted)
    again = forget(storage_of(tmp_path), identity=DIGEST, keys=gone)
    assert (again.rows, again.deleted) == (0, ())


def test_pinned_rows_are_forgotten_but_their_bytes_stay(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:2])
    uuids = names(tmp_path, "segments")
    reader = open_cache(tmp_path)
    view = reader.view([record.key for record in records], dataset="d", k=8)
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[records[0].key])
    assert report.pinned_by == (view.digest,)
    assert len(report.kept) == 1 and report.kept[0] in uuids
    assert open_cache(tmp_path).get_many([records[0].key]) == [None]
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == sorted(
        r.key for r in records
    )
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[records[0].key], break_pins=True)
    assert (report.unpinned, report.kept) == ((view.digest,), ())
    assert read_pins(storage_of(tmp_path)) == []
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == [records[1].key]


@pytest.mark.parametrize("failpoint", ["segment-before-manifest", *REWRITE_FAILPOINTS])
def test_a_killed_erasure_is_finished_by_the_next(tmp_path: Path, failpoint: str) -> None:
    records = put_each(tmp_path, PROMPTS[:2])
    merge(tmp_path)
    sweep(tmp_path)
    keys = [records[0].key]
    killed_at(failpoint, lambda: forget(storage_of(tmp_path), identity=DIGEST, keys=keys))
    cache = open_cache(tmp_path)
    assert cache.get_many([records[1].key])[0] is not None
    forget(storage_of(tmp_path), identity=DIGEST, keys=keys)
    merge(tmp_path)
    sweep(tmp_path)
    cache = open_cache(tmp_path)
    assert [record is None for record in cache.get_many([records[0].key, records[1].key])] == [True, False]
    assert len(names(tmp_path, "segments")) == 1
    assert cache.verify() == []


def test_damaged_segments_are_forgotten_whole(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:2])
    merge(tmp_path)
    sweep(tmp_path)
    (uuid,) = names(tmp_path, "segments")
    flip_bit(next((teacher_dir(tmp_path) / "segments" / uuid / "topk_ids" / "c").rglob("0/0")))
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[records[0].key])
    assert report.deleted == (uuid,)
    assert names(tmp_path, "segments") == names(tmp_path, "manifests") == []


def test_segments_set_aside_are_forgotten_even_unread(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:2])
    hurt, _ = names(tmp_path, "segments")
    flip_bit(teacher_dir(tmp_path) / "manifests" / f"{hurt}.keys")
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[bytes(32)])
    assert (report.unreadable, report.deleted) == ((hurt,), ())
    storage_of(tmp_path).create(f"quarantine/{hurt}.json", b"{}")
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[bytes(32)])
    assert (report.unreadable, report.deleted) == ((), (hurt,))
    assert sum(found is not None for found in open_cache(tmp_path).get_many([r.key for r in records])) == 1


def test_rows_are_found_by_their_tokens(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    merge(tmp_path)
    found = list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda tokens: 7 in tokens[:3]))
    assert found == [record.key for record in records if record.token_ids[2] == 7]
