"""Rollouts in the cache of their teacher: which stay, and that looking after them costs the same however many there were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rewriting_builders import DIGEST, storage_of
from rollout_builders import STAGE, rollouts_of, written
from store_builders import VOCAB, open_cache

from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import Manifest
from cache.store import TeacherCache
from orchestration.rollouts.shelf import RolloutShelf
from student_train.handoff.rollouts import Rollout, RolloutExchange

PLENTY = 1 << 40


def commit(number: int, *, cache: TeacherCache, exchange: RolloutExchange) -> None:
    """One rollout of one sequence, cached, pinned, and visible to the worker group."""
    record = written(5 + number, version=number)
    cache.put([record], vocab=VOCAB, rollout=STAGE)
    view = cache.view([record.key], dataset=f"rollout-{number:03d}", k=8)
    exchange.commit(
        Rollout(
            number=number,
            version=number,
            view=view,
            samples=np.zeros(1, dtype=np.int64),
            drawn_by_teacher=np.zeros(record.response_len, dtype=bool),
            engine_logprobs=np.zeros(record.response_len, dtype=np.float32),
            metrics={},
        )
    )


def shelf_of(root: Path, exchange: RolloutExchange) -> RolloutShelf:
    return RolloutShelf(root, identity=DIGEST, exchange=exchange)


def test_only_rollouts_that_nobody_reads_any_more_leave_the_cache(tmp_path: Path) -> None:
    cache, exchange = open_cache(tmp_path / "cache"), RolloutExchange(tmp_path / "work")
    shelf = shelf_of(tmp_path / "cache", exchange)
    for number in range(4):
        commit(number, cache=cache, exchange=exchange)
    assert shelf.hold_to(0).retired == ()
    shelf.let_go(before=2)
    report = shelf.hold_to(0)
    oldest = [manifest.uuid for manifest in rollouts_of(cache)]
    assert report.retired == tuple(oldest[:2]) and report.pinned == tuple(oldest[2:])
    # A stage that goes on later lets go of the same ones again, and of the next.
    again = shelf_of(tmp_path / "cache", exchange)
    again.let_go(before=3)
    assert again.hold_to(0).retired == (oldest[2],)
    assert shelf.hold_to(PLENTY).bytes_before == report.bytes_after - rollouts_of(cache)[2].named_bytes


def test_the_work_for_a_rollout_does_not_grow_with_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, exchange = open_cache(tmp_path / "cache"), RolloutExchange(tmp_path / "work")
    shelf, work, counts = shelf_of(tmp_path / "cache", exchange), list[Counter[str]](), Counter[str]()

    def counted(kind: type, name: str) -> None:
        whole = getattr(kind, name)

        def call(*args: object, **terms: object) -> object:
            counts[name] += 1
            return whole(*args, **terms)

        monkeypatch.setattr(kind, name, call)

    for kind, name in ((LocalStorage, "read"), (LocalStorage, "fetch"), (LocalStorage, "names")):
        counted(kind, name)
    counted(RolloutExchange, "rollout")
    # What a manifest takes on disk is found by writing it anew.
    counted(Manifest, "to_json")
    for number in range(12):
        counts.clear()
        commit(number, cache=cache, exchange=exchange)
        shelf.let_go(before=number - 1)
        shelf.hold_to(PLENTY)
        work.append(Counter(counts))
    assert work[11] == work[3]
    assert work[11]["rollout"] == 1
    # A stage that goes on after a kill looks at all of them, once.
    late = shelf_of(tmp_path / "cache", exchange)
    late.let_go(before=11)
    late.hold_to(PLENTY)
    counts.clear()
    late.hold_to(PLENTY)
    assert counts["read"] == counts["fetch"] == counts["rollout"] == 0


def test_of_rollouts_that_went_no_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, exchange = open_cache(tmp_path / "cache"), RolloutExchange(tmp_path / "work")
    shelf = shelf_of(tmp_path / "cache", exchange)
    for number in range(3):
        commit(number, cache=cache, exchange=exchange)
    shelf.let_go(before=3)
    assert len(shelf.hold_to(0).retired) == 3
    tombstones = [name for name in storage_of(tmp_path / "cache").names("tombstones") if name.endswith(".json")]
    assert len(tombstones) == 3
    read: list[str] = []
    whole = LocalStorage.read
    monkeypatch.setattr(
        LocalStorage, "read", lambda self, name, **terms: read.append(name) or whole(self, name, **terms)
    )
    shelf.hold_to(0)
    assert not [name for name in read if name.startswith("manifests/")]
