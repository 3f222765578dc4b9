from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from store_builders import VOCAB, answer, assert_same_text, damage, flip_bit, make_request, open_cache, teacher_dir

from cache.disk.columns import SegmentSize, layouts
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import DamagedObject, ObjectInfo, read_manifest
from cache.disk.shards import ChunkLayout, ShardFile
from cache.records import GenerateRequest, TeacherRecord
from cache.store import TeacherCache
from configs.errors import CacheError
from configs.regular_files import read_regular

REQUESTS = [make_request([3, 4, number]) for number in range(5, 13)]
REPEATED = ("finish", "prompt_len")
"""Read from the key object, where they stand too; damage to these arrays harms nobody and is left to `verify`."""
ARRAYS = sorted(layouts(SegmentSize(rows=1, scored_rows=1, tokens=1, k=1, chunk_rows=1, encoding="topk-u8")))


def fill(root: Path, *, requests: list[GenerateRequest]) -> tuple[str, list[TeacherRecord]]:
    answers = [answer(request) for request in requests]
    report = open_cache(root).put(answers, vocab=VOCAB)
    assert report is not None
    return report.uuid, [record for record, _ in answers]


def object_path(root: Path, uuid: str, name: str) -> Path:
    found = (teacher_dir(root) / "segments" / uuid / name / "c").rglob("*")
    (path,) = (place for place in found if place.is_file())
    return path


@pytest.mark.parametrize("how", ["0.0", "0.5", "0.99", "cut", "emptied", "deleted"])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_array_is_noticed_and_its_rows_are_missing(tmp_path: Path, name: str, how: str) -> None:
    _, kept = fill(tmp_path, requests=REQUESTS[:4])
    hurt, lost = fill(tmp_path, requests=REQUESTS[4:])
    path = object_path(tmp_path, hurt, name)
    damage(path, how)
    cache = open_cache(tmp_path)
    assert [(found.segment, found.name) for found in cache.verify()] == [
        (hurt, str(path.relative_to(teacher_dir(tmp_path) / "segments" / hurt)))
    ]
    records = cache.get_many([record.key for record in kept + lost])
    for found, original in zip(records[:4], kept, strict=True):
        assert_same_text(found, original)
    flipped = how.startswith("0.")
    if flipped and name in REPEATED:
        for found, original in zip(records[4:], lost, strict=True):
            assert_same_text(found, original)
        return
    assert records[4:] == [None] * 4
    assert cache.missing(REQUESTS, k=8).generate == (4, 5, 6, 7)
    assert cache.stats().segments == 1
    # Only bytes that were read twice and were wrong are marked for the others.
    marked = [marker.stem for marker in (teacher_dir(tmp_path) / "quarantine").iterdir()]
    assert marked == ([hurt] if flipped else [])
    assert open_cache(tmp_path).missing(REQUESTS, k=8).generate == (4, 5, 6, 7)


def test_damage_is_warned_about_and_filled_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hurt, records = fill(tmp_path, requests=REQUESTS)
    flip_bit(object_path(tmp_path, hurt, "topk_ids"))
    with caplog.at_level(logging.WARNING):
        assert open_cache(tmp_path).get_many([records[0].key]) == [None]
    assert hurt in caplog.text
    assert "set aside" in caplog.text
    assert fill(tmp_path, requests=REQUESTS)[0] != hurt
    assert_same_text(open_cache(tmp_path).get_many([records[0].key])[0], records[0])


@pytest.mark.parametrize("how", ["0.1", "0.7", "cut", "deleted"])
@pytest.mark.parametrize("name", ["zarr.json", "topk_ids/zarr.json"])
def test_damaged_metadata_is_noticed(tmp_path: Path, name: str, how: str) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    damage(teacher_dir(tmp_path) / "segments" / uuid / name, how)
    cache = open_cache(tmp_path)
    assert [(found.segment, found.name) for found in cache.verify()] == [(uuid, name)]
    for found, original in zip(cache.get_many([record.key for record in records]), records, strict=True):
        if found is not None:
            assert_same_text(found, original)


@pytest.mark.parametrize("how", ["0.0", "0.2", "0.5", "0.9", "cut", "emptied", "deleted"])
@pytest.mark.parametrize("suffix", ["json", "keys"])
def test_a_damaged_manifest_or_key_object_loses_its_rows_alone(tmp_path: Path, suffix: str, how: str) -> None:
    _, kept = fill(tmp_path, requests=REQUESTS[:4])
    hurt, lost = fill(tmp_path, requests=REQUESTS[4:])
    damage(teacher_dir(tmp_path) / "manifests" / f"{hurt}.{suffix}", how)
    cache = open_cache(tmp_path)
    assert cache.missing(REQUESTS, k=8).generate == (4, 5, 6, 7)
    assert cache.get_many([record.key for record in lost]) == [None] * 4
    assert_same_text(cache.get_many([kept[0].key])[0], kept[0])
    gone = suffix == "json" and how == "deleted"
    assert [found.segment for found in cache.verify()] == ([] if gone else [hurt])


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    uuid, _ = fill(tmp_path, requests=REQUESTS)
    path = teacher_dir(tmp_path) / "manifests" / f"{uuid}.json"
    whole, storage = path.read_bytes(), LocalStorage(teacher_dir(tmp_path))
    digest = storage.root.name
    manifest = read_manifest(storage, uuid, identity=digest)
    for position in range(0, len(whole), 5):
        path.write_bytes(whole)
        flip_bit(path, at=position / len(whole), bit=position % 8)
        try:
            assert read_manifest(storage, uuid, identity=digest) == manifest
        except CacheError:
            continue


def test_damage_after_the_first_read_is_noticed_too(tmp_path: Path) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    cache = TeacherCache.open(tmp_path, open_cache(tmp_path).identity, cache_bytes=1)
    assert_same_text(cache.get_many([records[0].key])[0], records[0])
    flip_bit(object_path(tmp_path, uuid, "topk_dq"), at=0.3)
    assert cache.get_many([records[0].key]) == [None]


def test_a_view_that_lost_rows_says_so(tmp_path: Path) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    cache = open_cache(tmp_path)
    view = cache.view([record.key for record in records], dataset="train", k=8)
    flip_bit(object_path(tmp_path, uuid, "topk_ids"), at=0.5)
    with pytest.raises(CacheError, match=r"view train lost rows.*run the fill again"):
        list(cache.iter_blocks(view, [np.arange(4)]))
    with pytest.raises(CacheError, match="lost rows"):
        open_cache(tmp_path).iter_blocks(view, [np.arange(4)])
    fill(tmp_path, requests=REQUESTS)
    again = open_cache(tmp_path)
    assert again.view([record.key for record in records], dataset="train", k=8).digest != view.digest


def test_others_drop_what_one_process_marked(tmp_path: Path) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    reader, other = open_cache(tmp_path), open_cache(tmp_path)
    flip_bit(object_path(tmp_path, uuid, "token_ids"), at=0.5)
    assert reader.get_many([records[0].key]) == [None]
    assert other.lookup(REQUESTS) != [None] * 8
    other.refresh()
    assert other.lookup(REQUESTS) == [None] * 8


def test_a_failing_disk_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, records = fill(tmp_path, requests=REQUESTS)
    cache = open_cache(tmp_path)

    def fail(path: Path, *, at_most: int) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("cache.disk.local_storage.read_regular", fail)
        with pytest.raises(CacheError, match=r"Input/output error.*check the disk"):
            cache.get_many([records[0].key])
    assert list((teacher_dir(tmp_path) / "quarantine").iterdir()) == []
    assert_same_text(cache.get_many([records[0].key])[0], records[0])


def test_the_second_best_row_comes_back_when_the_best_is_damaged(tmp_path: Path) -> None:
    text, request = answer(REQUESTS[0], k=0)
    cache = open_cache(tmp_path)
    cache.put([(text, request)], vocab=VOCAB)
    scored, _ = answer(REQUESTS[0], k=4)
    report = cache.put([scored], vocab=VOCAB)
    assert report is not None
    flip_bit(object_path(tmp_path, report.uuid, "tail_logmass"), at=0.5)
    fresh = open_cache(tmp_path)
    found = fresh.get_many([text.key])[0]
    assert found is not None and found.k == 0
    assert len(fresh.missing([request], k=4).score) == 1


def test_a_file_that_shows_up_late_is_taken_in_then(tmp_path: Path) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    path = object_path(tmp_path, uuid, "topk_ids")
    aside = path.rename(tmp_path / "aside")
    cache = open_cache(tmp_path)
    assert cache.lookup(REQUESTS) == [None] * 8
    aside.rename(path)
    cache.refresh()
    assert_same_text(cache.get_many([records[0].key])[0], records[0])


def test_keys_that_cannot_be_read_are_an_error_and_never_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, kept = fill(tmp_path, requests=REQUESTS)
    cache = open_cache(tmp_path)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("cache.disk.local_storage.os.pread", fail)
        for ask in (lambda: cache.missing(REQUESTS, k=8), lambda: cache.get_many([kept[0].key])):
            with pytest.raises(CacheError, match="Input/output error"):
                ask()
    assert cache.lookup(REQUESTS) == [record.key for record in kept]


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7, 0.95])
def test_keys_that_change_while_the_cache_is_open_lead_to_no_row(tmp_path: Path, part: float) -> None:
    uuid, records = fill(tmp_path, requests=REQUESTS)
    cache = open_cache(tmp_path)
    flip_bit(teacher_dir(tmp_path) / "manifests" / f"{uuid}.keys", at=part)
    assert cache.get_many([record.key for record in records]) == [None] * len(records)
    assert cache.missing(REQUESTS, k=8).generate == tuple(range(len(REQUESTS)))


def test_a_layout_of_impossible_size_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    layout = ChunkLayout(np.dtype("<f4"), (2**20, 2**20), 1)
    shard = ShardFile(LocalStorage(tmp_path), ObjectInfo.of(b"x" * 64), layout, segment="s", name="object")
    with pytest.raises(DamagedObject, match="do not exist"):
        shard.chunk(0)


def test_a_chunk_that_claims_another_size_is_not_expanded(tmp_path: Path) -> None:
    uuid, _ = fill(tmp_path, requests=REQUESTS)
    path = object_path(tmp_path, uuid, "token_ids")
    info, storage = ObjectInfo.of(path.read_bytes()), LocalStorage(teacher_dir(tmp_path))
    for count in (1, 10**6):
        layout = ChunkLayout(np.dtype("<i4"), (count,), 1)
        with pytest.raises(DamagedObject, match="does not expand"):
            ShardFile(storage, info, layout, segment=uuid, name="token_ids/c/0").chunk(0)


def test_one_bad_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, records = fill(tmp_path, requests=REQUESTS)
    cache = open_cache(tmp_path)
    garbled: list[Path] = []

    def garble_once(path: Path, *, at_most: int) -> bytes:
        data = read_regular(path, at_most=at_most)
        if path in garbled:
            return data
        garbled.append(path)
        return bytes(len(data))

    with monkeypatch.context() as patch:
        patch.setattr("cache.disk.local_storage.read_regular", garble_once)
        assert_same_text(cache.get_many([records[0].key])[0], records[0])
    assert garbled
    assert list((teacher_dir(tmp_path) / "quarantine").iterdir()) == []
