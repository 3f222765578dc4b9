"""The limit on what rollouts take: who goes, who stays, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rewriting_builders import (
    DIGEST,
    StoppingStorage,
    everything,
    forked,
    killed_at,
    merge,
    names,
    put_each,
    requests_of,
    storage_of,
    wait_for,
)
from rollout_builders import enforce, put_rollouts, rollouts_of, the_students, written
from store_builders import flip_bit, open_cache, teacher_dir

from cache.disk.failpoints import REWRITE_FAILPOINTS
from cache.pinning import pin_view, remove_pins
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import forget
from cache.upkeep.rollouts import enforce_rollout_quota
from configs.errors import CacheError

PROMPTS = [5, 6, 7]


def take(root: Path) -> int:
    return sum(manifest.named_bytes for manifest in rollouts_of(open_cache(root)))


def stored(root: Path) -> list[str]:
    return names(root, "manifests", suffix=".json")


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    merge(tmp_path)
    replaced = names(tmp_path, "tombstones")
    put_rollouts(tmp_path, *(written(prompt) for prompt in (8, 9, 10)))
    reader = open_cache(tmp_path)
    one, two, three = rollouts_of(reader)
    assert enforce(tmp_path, take(tmp_path)).retired == ()
    fills = set(stored(tmp_path)) - {one.uuid, two.uuid, three.uuid}
    report = enforce(tmp_path, three.named_bytes, grace_s=3600.0)
    assert (report.retired, report.deleted, report.pinned) == ((one.uuid, two.uuid), (), ())
    assert report.bytes_before == one.named_bytes + two.named_bytes + three.named_bytes
    assert report.bytes_after == three.named_bytes == take(tmp_path)
    assert report.fits
    assert set(report.waiting) == {one.uuid, two.uuid}
    assert report.waiting_bytes == one.named_bytes + two.named_bytes
    # Whoever opened the cache before goes on; who opens it now asks anew.
    keys = [written(prompt).key for prompt in (8, 9, 10)]
    assert None not in reader.get_many(keys)
    assert [found is None for found in open_cache(tmp_path).get_many(keys)] == [True, True, False]
    late = enforce(tmp_path, three.named_bytes)
    assert (late.retired, set(late.deleted), late.waiting) == ((), {one.uuid, two.uuid}, ())
    assert names(tmp_path, "tombstones") == replaced
    assert set(stored(tmp_path)) == set(names(tmp_path, "segments")) == fills | {three.uuid}
    assert enforce(tmp_path, 0).fits
    assert set(stored(tmp_path)) == fills
    assert None not in open_cache(tmp_path).get_many([record.key for record in records])


def test_what_a_live_view_reads_stays_and_the_report_says_so(tmp_path: Path) -> None:
    put_rollouts(tmp_path, *(written(prompt) for prompt in PROMPTS))
    one, two, three = rollouts_of(open_cache(tmp_path))
    view = open_cache(tmp_path).view([written(PROMPTS[0]).key], dataset="rollout", k=8)
    report = enforce(tmp_path, three.named_bytes)
    assert (report.pinned, report.retired, report.fits) == ((one.uuid,), (two.uuid, three.uuid), True)
    report = enforce(tmp_path, 10)
    assert (report.pinned, report.retired, report.fits) == ((one.uuid,), (), False)
    assert report.bytes_after == one.named_bytes
    ((found,),) = open_cache(tmp_path).iter_blocks(view, [np.arange(1)])
    assert found.policy_version == 3
    report = enforce(tmp_path, 10, pin_days=0.0)
    assert (report.retired, report.deleted, report.fits) == ((one.uuid,), (one.uuid,), True)


def test_a_view_made_while_its_rows_go_is_read_to_its_end(tmp_path: Path) -> None:
    put_rollouts(tmp_path, written(5))
    (manifest,) = rollouts_of(open_cache(tmp_path))
    late = open_cache(tmp_path)
    assert enforce(tmp_path, 0, grace_s=3600.0).retired == (manifest.uuid,)
    view = late.view([written(5).key], dataset="rollout", k=8)
    report = enforce(tmp_path, 0)
    assert (report.bytes_before, report.waiting, report.deleted) == (0, (manifest.uuid,), ())
    assert collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0).kept == view.segments
    ((found,),) = open_cache(tmp_path).iter_blocks(view, [np.arange(1)])
    assert found.key == written(5).key
    pin_view(storage_of(tmp_path), view)
    remove_pins(storage_of(tmp_path), [view.digest])
    assert enforce(tmp_path, 0).deleted == (manifest.uuid,)


def test_a_damaged_rollout_is_left_to_the_collection(tmp_path: Path) -> None:
    put_rollouts(tmp_path, written(5), written(6))
    one, two = rollouts_of(open_cache(tmp_path))
    flip_bit(teacher_dir(tmp_path) / "manifests" / f"{one.uuid}.json")
    report = enforce(tmp_path, 0)
    assert (report.bytes_before, report.deleted) == (two.named_bytes, (two.uuid,))


@pytest.mark.parametrize("failpoint", REWRITE_FAILPOINTS)
def test_a_killed_enforcement_is_finished_by_the_next(tmp_path: Path, failpoint: str) -> None:
    records = put_each(tmp_path, PROMPTS)
    put_rollouts(tmp_path, *(the_students(record, k=8) for record in records), written(9))
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    killed_at(failpoint, lambda: enforce(tmp_path, 0))
    marked = failpoint == "rewrite-before-delete"
    assert (len(names(tmp_path, "tombstones")), len(stored(tmp_path))) == (marked, 7)
    assert everything(open_cache(tmp_path), requests, keys) == before
    assert open_cache(tmp_path).verify() == []
    assert (enforce(tmp_path, 0).bytes_after, len(stored(tmp_path))) == (0, 3)
    assert everything(open_cache(tmp_path), requests, keys) == {**before, "count": 3}


def test_an_enforcement_that_stops_at_any_delete_leaves_a_sound_cache(tmp_path: Path) -> None:
    for stop in range(4):
        root = tmp_path / str(stop)
        records = put_each(root, PROMPTS[:1])
        put_rollouts(root, written(8))
        storage = StoppingStorage(teacher_dir(root), after=stop)
        with pytest.raises(CacheError, match="disk"):
            enforce_rollout_quota(storage, identity=DIGEST, max_bytes=0, grace_s=-1.0)
        cache = open_cache(root)
        assert (cache.stats().records, cache.verify()) == (1, [])
        assert cache.get_many([records[0].key])[0] is not None
        enforce(root, 0)
        collect_garbage(storage_of(root), identity=DIGEST, dry_run=False, grace_s=-1.0)
        assert names(root, "tombstones") == []
        assert len(stored(root)) == len(names(root, "segments")) == 1


def test_two_that_enforce_and_one_that_forgets(tmp_path: Path) -> None:
    put_each(tmp_path, PROMPTS)
    put_rollouts(tmp_path, *(written(prompt) for prompt in (8, 9)))
    tasks = [forked(lambda: enforce(tmp_path, 0)) for _ in range(2)]
    wait_for([*tasks, forked(lambda: forget(storage_of(tmp_path), identity=DIGEST, keys=[written(8).key]))])
    cache = open_cache(tmp_path)
    assert (cache.stats().records, cache.verify(), take(tmp_path)) == (3, [], 0)
