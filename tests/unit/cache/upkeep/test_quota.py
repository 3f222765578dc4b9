from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from rewriting_builders import killed_at
from store_builders import STOP, VOCAB, make_record, make_request, open_cache, teacher_dir

from cache.claims import Claims
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.failures import Failures
from cache.identity import TeacherIdentity
from cache.records import TeacherRecord
from cache.upkeep.quota import QuotaReport, enforce_quota
from configs.errors import CacheError

TEACHERS = [TeacherIdentity(weights_sha256=f"{number}" * 64, config_sha256="b" * 64) for number in range(3)]
DAY = 86_400.0


def fill(root: Path, teacher: TeacherIdentity, *, days_ago: float) -> TeacherRecord:
    """One record of a teacher, written so many days ago."""
    record = make_record([3, 4, 5, STOP], prompt_len=3, identity=teacher)
    open_cache(root, identity=teacher).put([record], vocab=VOCAB)
    place = teacher_dir(root, identity=teacher)
    (path,) = (place / "manifests").glob("*.json")
    manifest = read_manifest(LocalStorage(place), path.stem, identity=teacher.digest())
    then = time.time() - days_ago * DAY
    path.write_bytes(dataclasses.replace(manifest, created_ns=int(then * 1e9)).to_json())
    return record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, teacher in enumerate(TEACHERS):
        fill(tmp_path, teacher, days_ago=30 - 10 * number)
    return tmp_path


def size(root: Path, *teachers: TeacherIdentity) -> int:
    places = [teacher_dir(root, identity=teacher) for teacher in teachers]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())


def enforce(root: Path, limit: int, **terms: object) -> QuotaReport:
    return enforce_quota(root, max_bytes=limit, evict=True, **terms)  # type: ignore[arg-type]


def held(root: Path) -> list[int]:
    return [open_cache(root, identity=teacher).stats().records for teacher in TEACHERS]


def test_below_the_limit_nothing_happens(root: Path) -> None:
    total = size(root, *TEACHERS)
    for evict in (False, True):
        report = enforce_quota(root, max_bytes=total, evict=evict)
        assert (report.bytes_before, report.bytes_after, report.evicted) == (total, total, ())
    assert [use.identity for use in report.teachers] == [teacher.digest() for teacher in TEACHERS]
    assert json.loads(json.dumps(dataclasses.asdict(report)))["max_bytes"] == total
    assert enforce_quota(root / "absent", max_bytes=0, evict=True).bytes_after == 0


def test_over_the_limit_it_says_what_may_go(root: Path) -> None:
    total = size(root, *TEACHERS)
    with pytest.raises(CacheError, match="over the limit") as caught:
        enforce_quota(root, max_bytes=total - 1, evict=False, in_use=[TEACHERS[1].digest()])
    text = str(caught.value)
    assert f"{total:,} bytes" in text
    assert text.count("may go") == 3 and "stays: in use" in text
    assert all(teacher.digest()[:12] in text for teacher in TEACHERS)
    assert held(root) == [1, 1, 1]


def test_the_least_recently_used_go_first(root: Path) -> None:
    total = size(root, *TEACHERS)
    report = enforce(root, total - 1)
    assert report.evicted == (TEACHERS[0].digest(),)
    assert report.bytes_after == size(root, *TEACHERS) == size(root, *TEACHERS[1:])
    assert held(root) == [0, 1, 1]
    report = enforce(root, size(root, TEACHERS[2]) + 2000)
    assert report.evicted == (TEACHERS[0].digest(), TEACHERS[1].digest())
    assert held(root) == [0, 0, 1]


def test_what_could_not_be_answered_goes_with_its_teacher(root: Path) -> None:
    storage, digest = LocalStorage(teacher_dir(root, identity=TEACHERS[0])), TEACHERS[0].digest()
    Failures(storage, identity=digest, engine={"vllm": "1"}).add({make_request([3]): "too long"})
    assert enforce(root, size(root, *TEACHERS) - 1).evicted == (digest,)
    assert storage.names("failures") == []


def test_a_view_is_a_use_and_a_live_pin_a_reason_to_stay(root: Path) -> None:
    cache = open_cache(root, identity=TEACHERS[0])
    record = make_record([3, 4, 5, STOP], prompt_len=3, identity=TEACHERS[0])
    view = cache.view([record.key], dataset="d", k=8)
    total = size(root, *TEACHERS)
    assert enforce(root, total - 1).evicted == (TEACHERS[1].digest(),)
    with pytest.raises(CacheError, match="stays: pinned by a view"):
        enforce(root, 0)
    assert held(root) == [1, 0, 0]
    for pin in (teacher_dir(root, identity=TEACHERS[0]) / "pins").glob(f"{view.digest}.*"):
        if pin.suffix in (".json", ".places"):
            pin.write_text(json.dumps(json.loads(pin.read_text()) | {"used": time.time() - 40 * DAY}))
    with pytest.raises(CacheError, match="evicted"):
        enforce(root, 0, in_use=[TEACHERS[1].digest(), TEACHERS[2].digest()])
    assert held(root) == [0, 0, 0]


def test_what_somebody_works_at_stays(root: Path) -> None:
    total = size(root, *TEACHERS)
    storage = LocalStorage(teacher_dir(root, identity=TEACHERS[0]))
    with Claims(storage).claim([bytes(32)], k=8):
        assert enforce(root, total - 1).evicted == (TEACHERS[1].digest(),)
    writer = open_cache(root, identity=TEACHERS[0]).writer(vocab=VOCAB)
    writer.add(make_record([3, 4, 6, STOP], prompt_len=3, identity=TEACHERS[0]))
    with pytest.raises(CacheError, match="stays: being written"):
        enforce(root, 0)
    assert writer.commit() is not None
    assert held(root) == [2, 0, 0]


def test_a_dead_writer_protects_nothing(root: Path) -> None:
    record = make_record([3, 4, 6, STOP], prompt_len=3, identity=TEACHERS[0])
    killed_at("segment-before-manifest", lambda: open_cache(root, identity=TEACHERS[0]).put([record], vocab=VOCAB))
    assert enforce(root, 0).evicted == tuple(teacher.digest() for teacher in TEACHERS)
    assert size(root, *TEACHERS) == 0


def test_a_reader_of_an_evicted_teacher_finds_it_empty(root: Path) -> None:
    cache = open_cache(root, identity=TEACHERS[0])
    record = make_record([3, 4, 5, STOP], prompt_len=3, identity=TEACHERS[0])
    enforce(root, 0)
    assert cache.get_many([record.key]) == [None]
    cache.refresh()
    assert cache.missing([make_request([3, 4, 5])], k=8).generate == (0,)
    assert cache.put([record], vocab=VOCAB) is not None
    again = open_cache(root, identity=TEACHERS[0])
    assert (again.stats().records, again.verify()) == (1, [])
