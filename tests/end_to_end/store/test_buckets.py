"""A cache below a URL does what one in a directory does."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from buckets import REQUESTS, fill, server, url
from signal_builders import assert_same_signal, respond, some_requests
from store_builders import OTHER_TEACHER, TEACHER, VOCAB, answer, assert_same_text

from cache.disk.object_storage import ObjectStorage
from cache.disk.roots import list_teachers, open_storage
from cache.store import TeacherCache
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import compact, forget
from configs.errors import CacheError

__all__ = ["server", "url"]


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


def test_signals_in_a_bucket_are_kept_merged_and_carried(url: str, tmp_path: Path) -> None:
    records = [respond(request) for request in some_requests(6)]
    cache, other = TeacherCache.open(url, TEACHER), TeacherCache.open(url, TEACHER)
    cache.signals.put(records[:10], encoding="signal-u8")
    other.signals.put(records[10:], encoding="signal-u8")
    cache.refresh()
    keys = [record.key for record in records]
    view = cache.signals.view(keys, dataset="train")
    (before,) = cache.signals.iter_batches(view, [np.arange(len(keys))], with_tokens=True)
    for found, record in zip(before.records(), records, strict=True):
        assert_same_signal(found, record, encoding="signal-u8")
    storage = open_storage(url, TEACHER.digest(), create=False)
    assert compact(storage, identity=TEACHER.digest()).rows == len(records)
    collect_garbage(storage, identity=TEACHER.digest(), dry_run=False, grace_s=-1.0)
    fresh = pickle.loads(pickle.dumps(cache))
    (after,) = fresh.signals.iter_batches(view, [np.arange(len(keys))], prefetch=1)
    assert after.values.tobytes() == before.values.tobytes()
    assert fresh.verify() == [] and fresh.stats().signals == len(records)
    export_archive(storage, tmp_path / "a.tar", identity=TEACHER.digest())
    import_archive(tmp_path / "there", tmp_path / "a.tar")
    there = TeacherCache.open(tmp_path / "there", TEACHER)
    assert_same_signal(there.signals.get_many(keys[:1])[0], records[0], encoding="signal-u8")
    report = forget(storage, identity=TEACHER.digest(), keys=keys[:1], break_pins=True)
    assert report.rows == 1
    assert TeacherCache.open(url, TEACHER).signals.get_many(keys[:1]) == [None]


def test_damaged_signals_in_the_bucket_are_a_miss(url: str, tmp_path: Path) -> None:
    records = [respond(request) for request in some_requests(3)]
    TeacherCache.open(url, TEACHER).signals.put(records)
    storage = open_storage(url, TEACHER.digest(), create=False)
    (uuid,) = storage.names("segments")
    name = f"segments/{uuid}/signal_f32/c/0/0"
    data = bytearray(storage.read(name))
    data[len(data) // 2] ^= 4
    storage.replace(name, bytes(data))
    cache = TeacherCache.open(url, TEACHER)
    assert cache.signals.get_many([record.key for record in records]) == [None] * len(records)
    assert [damage.name for damage in cache.verify()] == ["signal_f32/c/0/0"]
