"""Damage to every kind of file that a cache consists of: no wrong row ever reaches anybody, and a refill heals it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from store_builders import (
    OTHER_TEACHER,
    TEACHER,
    VOCAB,
    answer,
    assert_same_text,
    damage,
    flip_bit,
    make_request,
    open_cache,
)

from cache.claims import Claims
from cache.disk.columns import SegmentSize, layouts
from cache.disk.local_storage import LocalStorage
from cache.disk.owners import Owner
from cache.keys import generation_key
from cache.records import GenerateRequest
from cache.store import TeacherCache
from cache.upkeep.garbage import collect_garbage
from cache.views import CacheView
from configs.errors import CacheError

REQUESTS = [make_request([3, 4, number]) for number in range(5, 17)]
SOUND, HURT, REFILLED, TWICE = REQUESTS[:4], REQUESTS[4:8], REQUESTS[8:10], REQUESTS[10:]
ORIGINALS = [answer(request)[0] for request in REQUESTS]
ARRAYS = sorted(layouts(SegmentSize(rows=1, scored_rows=1, tokens=1, k=1, chunk_rows=1, encoding="topk-u8")))
HOWS = ("0.3", "deleted", "cut", "emptied", "0.0", "0.55", "0.8", "0.999")
"""Where a bit flips, as a part of the file, or what else happens to it."""

KINDS = (
    "identity.json",
    "manifests/<hurt>.json",
    "manifests/<hurt>.keys",
    "segments/<hurt>/zarr.json",
    *(f"segments/<hurt>/{name}/zarr.json" for name in ("topk_ids", "token_offsets")),
    *(f"segments/<hurt>/{name}/c/*" for name in ARRAYS),
    "quarantine/*.json",
    "tombstones/*.json",
    "pins/*.json",
    "pins/*.npz",
    "claims/*.json",
    "claims/*.keys",
    "staging/*/owner.json",
)


def cases(kinds: Iterable[str], *, fast: int) -> list[ParameterSet]:
    """Every kind with every damage; all but the first `fast` are left to the slow tests."""
    slow = (pytest.mark.slow,)
    return [
        pytest.param(kind, how, marks=slow if at >= (2 if kind.endswith("/c/*") else fast) else ())
        for kind in kinds
        for at, how in enumerate(HOWS)
    ]


@dataclass(frozen=True, slots=True)
class Whole:
    """A cache with one of everything, and the segment that gets hurt."""

    root: Path
    hurt: str

    @property
    def directory(self) -> Path:
        return self.root / "cache" / TEACHER.digest()

    @property
    def view(self) -> CacheView:
        return CacheView.load(self.root / "view.npz")

    def open(self) -> TeacherCache:
        return TeacherCache.open(self.root / "cache", TEACHER, cache_bytes=1)

    def file(self, kind: str) -> Path:
        pattern = kind.replace("<hurt>", self.hurt)
        if pattern.endswith("/c/*"):
            (path,) = (p for p in (self.directory / pattern.removesuffix("/*")).rglob("*") if p.is_file())
        else:
            path = min(self.directory.glob(pattern))
        return path


def put(cache: TeacherCache, requests: Sequence[GenerateRequest]) -> str:
    report = cache.put([answer(request) for request in requests], vocab=VOCAB)
    assert report is not None
    return report.uuid


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("template")
    cache = open_cache(root / "cache")
    directory = root / "cache" / TEACHER.digest()
    old = put(cache, TWICE[:1])
    tombstone = {"segment": old, "replaced_by": [], "reason": "merged", "time": time.time()}
    (directory / "tombstones" / f"{old}.json").write_text(json.dumps(tombstone))
    damaged = put(cache, REFILLED)
    flip_bit(next(p for p in (directory / "segments" / damaged / "token_ids" / "c").rglob("*") if p.is_file()))
    fresh = open_cache(root / "cache")
    fresh.get_many([answer(REFILLED[0])[0].key])
    put(fresh, SOUND)
    whole = Whole(root, put(fresh, HURT))
    put(fresh, REFILLED)
    put(fresh, TWICE)
    fresh.view([answer(request)[0].key for request in REQUESTS], dataset="train", k=8).save(root / "view.npz")
    (directory / "staging" / "someone").mkdir()
    (directory / "staging" / "someone" / "owner.json").write_bytes(Owner.here().to_json())
    assert {path.stem for path in (directory / "quarantine").iterdir()} == {damaged}
    return whole


@pytest.fixture
def whole(template: Whole, tmp_path: Path) -> Whole:
    # Links cost less than copies; nothing is ever changed in place but by `damage`, which makes a copy first.
    shutil.copytree(template.root, tmp_path / "copy", copy_function=os.link)
    return Whole(tmp_path / "copy", template.hurt)


def assert_nothing_wrong(cache: TeacherCache) -> list[int]:
    """Everything that is answered is right; what is not answered counts as missing. The answer is what is there."""
    keys = cache.lookup(REQUESTS, k=8)
    for key, original in zip(keys, ORIGINALS, strict=True):
        assert key in (None, original.key)
    records = cache.get_many([original.key for original in ORIGINALS])
    for found, original in zip(records, ORIGINALS, strict=True):
        if found is not None:
            assert_same_text(found, original)
    there = [position for position, found in enumerate(records) if found is not None]
    absent = set(range(len(REQUESTS))) - set(there)
    assert set(cache.missing(REQUESTS, k=8).generate) == absent
    return there


def assert_view_is_right_or_refused(cache: TeacherCache, view: CacheView) -> None:
    try:
        blocks = list(cache.iter_blocks(view, [np.arange(len(view))]))
    except CacheError as error:
        assert "view train lost rows" in str(error)
        return
    for found, request in zip(blocks[0], REQUESTS, strict=True):
        assert_same_text(found, answer(request)[0])


@pytest.mark.parametrize(("kind", "how"), cases(KINDS, fast=3))
def test_damage_is_right_or_missing_or_refused_and_heals(whole: Whole, kind: str, how: str) -> None:
    # One reader was there before and has read a row, one opens the cache afterwards, one has read nothing yet.
    warm, idle = whole.open(), whole.open()
    assert_same_text(warm.get_many([answer(HURT[0])[0].key])[0], answer(HURT[0])[0])
    names = [generation_key(TEACHER.digest(), request) for request in HURT]
    with Claims(LocalStorage(whole.directory)).claim(names, k=0):
        damage(whole.file(kind), how)
        held = Claims(LocalStorage(whole.directory)).held([*names, b"\0" * 32], k=0).tolist()
        assert held[-1] is False
        assert held[:-1] == [True] * len(names) or kind.startswith("claims/")
        readers = [warm, idle]
        try:
            readers.append(whole.open())
        except CacheError as error:
            assert kind == "identity.json" and "identity.json" in str(error)
            whole.file(kind).unlink()
            readers.append(whole.open())
        for reader in readers:
            there = assert_nothing_wrong(reader)
            lost = set(range(len(REQUESTS))) - set(there)
            assert lost <= {4, 5, 6, 7}, "damage to one segment loses only its own rows"
            assert not lost or "<hurt>" in kind
            assert_view_is_right_or_refused(reader, whole.view)
        warm.refresh()
        assert_nothing_wrong(warm)
    writer = whole.open()
    lost = [REQUESTS[at] for at in writer.missing(REQUESTS, k=8).generate]
    if lost:
        put(writer, lost)
    for reader in (warm, idle, whole.open()):
        reader.refresh()
        assert assert_nothing_wrong(reader) == list(range(len(REQUESTS)))
        assert reader.stats().records == len(REQUESTS)


@pytest.mark.parametrize(
    ("kind", "how"), cases((kind for kind in KINDS if not kind.startswith(("segments/", "manifests/"))), fast=2)
)
def test_damage_to_a_note_makes_gc_delete_nothing_that_is_needed(whole: Whole, kind: str, how: str) -> None:
    with Claims(LocalStorage(whole.directory)).claim([b"\1" * 32], k=0):
        damage(whole.file(kind), how)
        collect_garbage(LocalStorage(whole.directory), identity=TEACHER.digest(), dry_run=False, grace_s=0.0)
    with suppress(CacheError):
        whole.open()
        assert_nothing_left_out(whole)
        return
    whole.file("identity.json").unlink()
    assert_nothing_left_out(whole)


def assert_nothing_left_out(whole: Whole) -> None:
    cache = whole.open()
    assert assert_nothing_wrong(cache) == list(range(len(REQUESTS)))
    assert (whole.directory / "staging" / "someone").is_dir()
    (block,) = cache.iter_blocks(whole.view, [np.arange(len(REQUESTS))])
    for found, request in zip(block, REQUESTS, strict=True):
        assert_same_text(found, answer(request)[0])


def test_a_damaged_view_file_is_refused(whole: Whole) -> None:
    path, view = whole.root / "view.npz", whole.view
    data = path.read_bytes()
    for how in (*(f"{part / 50}" for part in range(50)), "cut", "emptied", "deleted"):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        damage(path, how)
        try:
            assert CacheView.load(path).digest == view.digest
        except CacheError as error:
            assert "view.npz" in str(error)


def test_an_identity_swapped_with_another_is_refused_by_both(whole: Whole) -> None:
    open_cache(whole.root / "cache", identity=OTHER_TEACHER)
    places = [whole.root / "cache" / teacher.digest() / "identity.json" for teacher in (TEACHER, OTHER_TEACHER)]
    texts = [place.read_bytes() for place in places]
    for place, text in zip(places, reversed(texts), strict=True):
        place.unlink()
        place.write_bytes(text)
    for teacher, other in ((TEACHER, OTHER_TEACHER), (OTHER_TEACHER, TEACHER)):
        with pytest.raises(CacheError) as refused:
            open_cache(whole.root / "cache", identity=teacher)
        assert teacher.digest() in str(refused.value) and other.digest() in str(refused.value)
    assert asdict(TEACHER) != asdict(OTHER_TEACHER)


def test_segments_swapped_with_each_other_are_noticed(whole: Whole) -> None:
    """Each object is sound by itself, but stands where another one belongs."""
    sound = [path for path in (whole.directory / "segments").iterdir() if path.name != whole.hurt]
    other = next(path for path in sound if not (whole.directory / "tombstones" / f"{path.name}.json").exists())
    hurt = whole.directory / "segments" / whole.hurt
    os.rename(other, whole.root / "aside")
    os.rename(hurt, other)
    os.rename(whole.root / "aside", hurt)
    assert len(assert_nothing_wrong(whole.open())) < len(REQUESTS)
