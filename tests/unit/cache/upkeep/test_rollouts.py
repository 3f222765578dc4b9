"""What students wrote beside what a fill asked for: told apart, never in each other's way, with a quota of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from independent_reader import read_cache
from rewriting_builders import DIGEST, everything, merge, names, put_each, requests_of, storage_of
from rollout_builders import STAGE, enforce, put_rollouts, rollouts_of, the_students, written
from store_builders import VOCAB, answer, make_request, open_cache, teacher_dir

from cache.disk.manifests import DamagedObject, parse_manifest
from cache.pinning import remove_pins
from cache.store import TeacherCache
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import forget
from configs.errors import RecordError

PROMPTS = [5, 6, 7]


def test_a_rollout_is_told_from_a_fill(tmp_path: Path) -> None:
    (asked,) = put_each(tmp_path, [5])
    record = written(6)
    put_rollouts(tmp_path, record)
    bodies = [json.loads(storage_of(tmp_path).read(f"manifests/{name}.json"))["body"] for name in stored(tmp_path)]
    assert sorted(body.get("rollout", "absent") for body in bodies) == ["absent", STAGE]
    assert all(body["generations"] == ("rollout" not in body) for body in bodies)
    cache = open_cache(tmp_path)
    assert cache.verify() == []
    assert [found and found.policy_version for found in cache.get_many([asked.key, record.key])] == [None, 3]
    assert set(cache.sample(5, k=8)) == {asked.key, record.key}
    rows, generations = read_cache(teacher_dir(tmp_path))
    assert {key: [row.policy_version for row in held] for key, held in rows.items()} == {
        asked.key: [None],
        record.key: [3],
    }
    assert len(generations) == 1


def stored(root: Path) -> list[str]:
    return names(root, "manifests", suffix=".json")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (written(5, version=None), "policy_version=None"),
        (written(5, finish="stop"), "finish=stop in a rollout"),
        (answer(make_request([3, 4, 5])), "policy_version"),
        ((written(5), make_request([3, 4, 5])), "a student wrote it"),
    ],
)
def test_what_is_no_rollout_is_refused(tmp_path: Path, item: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        open_cache(tmp_path).put([item], vocab=VOCAB, rollout=STAGE)
    assert stored(tmp_path) == names(tmp_path, "staging") == []


def test_a_rollout_that_answers_requests_is_damaged(tmp_path: Path) -> None:
    put_rollouts(tmp_path, written(5))
    (manifest,) = rollouts_of(open_cache(tmp_path))
    forged = dataclasses.replace(manifest, generations=1).to_json()
    with pytest.raises(DamagedObject, match="numbers that no segment"):
        parse_manifest(forged, uuid=manifest.uuid, identity=DIGEST, place="here")


@pytest.mark.parametrize("first", ["fill", "rollouts"])
def test_no_rollout_is_in_a_view_of_what_a_fill_asked_for(tmp_path: Path, first: str) -> None:
    """Poorer, equal and fuller rows of the very texts that were asked for come, and go again."""
    asked = [answer(make_request([3, 4, prompt]))[0] for prompt in PROMPTS]
    students = [the_students(record, k=k) for record, k in zip(asked, (4, 8, 16), strict=True)]
    if first == "rollouts":
        put_rollouts(tmp_path, *students)
    put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in asked]
    if first == "fill":
        before = views(open_cache(tmp_path), keys)
        put_rollouts(tmp_path, *students)
    cache = open_cache(tmp_path)
    made = views(cache, keys)
    segments = {manifest.uuid for manifest in rollouts_of(cache)}
    assert len(segments) == 3 and not any(segments & set(view.segments) for view in made)
    for k in (0, 2, 8):
        assert cache.missing(requests, k=k).generate == ()
        assert [found and found.policy_version for found in cache.get_many(keys, k=k)] == [None] * 3
    assert [found and found.policy_version for found in cache.get_many(keys)] == [None, None, 7]
    assert [found and found.k for found in cache.get_many(keys)] == [8, 8, 16]
    assert [found and found.finish for found in cache.get_many(keys)] == ["stop"] * 3
    enforce(tmp_path, 0)
    after = views(open_cache(tmp_path), keys)
    assert [view.digest for view in made] == [view.digest for view in after]
    if first == "fill":
        assert [view.digest for view in before] == [view.digest for view in after]


def views(cache: TeacherCache, keys: list[bytes]) -> list[Any]:
    return [cache.view(keys, dataset="train", k=k) for k in (0, 2, 8)]


def test_a_rollout_answers_no_prompt(tmp_path: Path) -> None:
    put_rollouts(tmp_path, written(5))
    cache, requests = open_cache(tmp_path), requests_of([5])
    assert cache.lookup(requests) == [None] * len(requests)
    assert len(cache.missing(requests, k=0).generate) == 1


@pytest.mark.parametrize("rollout", [STAGE, None])
def test_a_view_follows_its_moved_rows_past_fuller_ones(tmp_path: Path, rollout: str | None) -> None:
    records = put_each(tmp_path, PROMPTS)
    view = open_cache(tmp_path).view([record.key for record in records], dataset="train", k=8)
    merge(tmp_path)
    open_cache(tmp_path).put([the_students(record, k=16) for record in records], vocab=VOCAB, rollout=rollout)
    collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0)
    assert not set(view.segments) & set(stored(tmp_path))
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.arange(3)])
    for found, record in zip(block, records, strict=True):
        np.testing.assert_array_equal(found.topk_ids, record.topk_ids)


def test_merging_leaves_rollouts_alone_and_drops_no_row_for_them(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    students = [the_students(record, k=16) for record in records]
    put_rollouts(tmp_path, *students, written(8), written(9))
    requests, keys = requests_of(PROMPTS), [record.key for record in [*records, written(8), written(9)]]
    before, there = everything(open_cache(tmp_path), requests, keys), rollouts_of(open_cache(tmp_path))
    report = merge(tmp_path)
    ((_, merged),) = report.merged
    assert (len(merged), report.rows, report.dropped, report.thinned) == (3, 3, 0, 0)
    assert rollouts_of(open_cache(tmp_path)) == there
    assert everything(open_cache(tmp_path), requests, keys) == before
    remove_pins(storage_of(tmp_path), names(tmp_path, "pins", suffix=".npz"))
    assert enforce(tmp_path, 0).bytes_after == 0
    assert open_cache(tmp_path).missing(requests, k=8).score == ()


def test_who_wrote_a_rollout_survives_every_move(tmp_path: Path) -> None:
    """Two sequences a segment, of which one is forgotten, so that the other moves; then away and back in."""
    kept, gone = written(5, version=11), written(6, version=12)
    put_each(tmp_path / "here", PROMPTS)
    open_cache(tmp_path / "here").put([kept, gone], vocab=VOCAB, rollout=STAGE)
    (old,) = rollouts_of(open_cache(tmp_path / "here"))
    assert forget(storage_of(tmp_path / "here"), identity=DIGEST, keys=[gone.key]).deleted == (old.uuid,)
    merge(tmp_path / "here")
    export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    import_archive(tmp_path / "there", tmp_path / "a.tar")
    for root in (tmp_path / "here", tmp_path / "there"):
        cache = open_cache(root)
        (manifest,) = rollouts_of(cache)
        assert (manifest.rollout, manifest.rows) == (STAGE, 1)
        assert manifest.uuid != old.uuid
        (found, lost) = cache.get_many([kept.key, gone.key])
        assert found is not None and lost is None
        assert (found.policy_version, found.finish) == (11, "given")
        assert cache.verify() == []
