"""Signals are merged, forgotten, carried elsewhere and collected like all rows, and never encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting_builders import (
    DIGEST,
    everything,
    forked,
    killed_at,
    merge,
    names,
    put_each,
    requests_of,
    storage_of,
    sweep,
    wait_for,
)
from signal_builders import CLASSES, ENCODINGS, SPANS, STATES, TAGS, ask, assert_same_signal, respond
from store_builders import TEACHER, flip_bit, open_cache, teacher_dir

from cache.disk.failpoints import FAILPOINTS, REWRITE_FAILPOINTS
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.disk.signal_encoding import HELD, MeasuredError
from cache.pinning import remove_pins
from cache.signals import SignalRecord, SignalRequest
from cache.store import TeacherCache
from cache.upkeep import rewriting
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.proof import prove_segment
from cache.upkeep.quota import enforce_quota
from cache.upkeep.raw_columns import RawSegment
from cache.upkeep.rewriting import forget
from cache.upkeep.rollouts import enforce_rollout_quota
from cache.upkeep.searching import find_matches

TEXTS = range(10, 16)
REQUESTS = [ask([3, text, 5, text], signal) for text in TEXTS for signal in (CLASSES, TAGS, STATES[0])]


def put_texts(root: Path, texts: Sequence[int] = TEXTS, **terms: Any) -> list[SignalRecord]:
    """One segment a text."""
    records = [respond(request) for request in REQUESTS]
    by_text = [[record for record in records if record.token_ids[1] == text] for text in texts]
    for some in by_text:
        assert open_cache(root).signals.put(some, **terms) is not None
    return [record for some in by_text for record in some]


def all_bits(cache: TeacherCache, requests: Sequence[SignalRequest] = REQUESTS) -> dict[str, Any]:
    """All that the cache says of these signals, bit for bit."""
    cache.refresh()
    keys = cache.signals.keys(requests)
    found = [record for record in cache.signals.get_many(keys) if record is not None]
    view = cache.signals.view([record.key for record in found], dataset="d")
    (block,) = cache.signals.iter_batches(view, [np.arange(len(view))])
    return {
        "missing": cache.signals.missing(requests),
        "records": [(record.key, record.token_ids.tobytes(), record.split, record.signal) for record in found],
        "values": [record.values.tobytes() for record in found],
        "count": cache.stats().signals,
        "view": view.digest,
        "block": block.values.tobytes(),
    }


def proved(root: Path) -> int:
    """How many segments there are, all of which are what they say."""
    for uuid in names(root, "segments"):
        prove_segment(storage_of(root), read_manifest(storage_of(root), uuid, identity=DIGEST), identity=DIGEST)
    return len(names(root, "segments"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_merging_changes_no_bit(tmp_path: Path, encoding: str) -> None:
    put_texts(tmp_path, encoding=encoding)
    put_each(tmp_path, [5, 6])
    stored = {bytes(row) for uuid in names(tmp_path, "segments") for row in raw_rows(tmp_path, uuid)}
    reader = open_cache(tmp_path)
    before = all_bits(reader)
    report = merge(tmp_path)
    ((new, _),) = [item for item in report.merged if len(item[1]) == len(TEXTS)]
    assert new is not None and (report.dropped, report.damaged) == (0, ())
    assert len(report.merged) == 2, "sequences are merged with sequences"
    assert {bytes(row) for row in raw_rows(tmp_path, new)} == stored
    for _ in range(2):
        assert all_bits(open_cache(tmp_path)) == all_bits(reader) == before
        sweep(tmp_path)
    assert open_cache(tmp_path).verify() == [] and proved(tmp_path) == 2
    assert merge(tmp_path).merged == ()


def raw_rows(root: Path, uuid: str) -> list[np.ndarray]:
    """The values of a segment of signals as they stand on disk, a row at a time."""
    raw = RawSegment(storage_of(root), read_manifest(storage_of(root), uuid, identity=DIGEST))
    if not raw.manifest.signals:
        return []
    values = raw.column(HELD[raw.manifest.encoding][0])  # type: ignore[index]
    return [row.view(np.uint8) for row in values]


def test_segments_of_different_terms_stay_apart(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    put_texts(tmp_path, [10], encoding="signal-f32")
    put_texts(tmp_path, [11], encoding="signal-f16")
    put_texts(tmp_path, [12], encoding="signal-u8")
    put_texts(tmp_path, [13], encoding="signal-u8", licence="mit")
    put_texts(tmp_path, [14], encoding="signal-u8", provenance={"engine": "x"})
    cache.signals.put([respond(ask([3, 4], SPANS))], encoding="signal-u8")
    put_each(tmp_path, [5])
    assert merge(tmp_path).merged == ()
    put_texts(tmp_path, [15], encoding="signal-u8")
    ((new, old),) = merge(tmp_path).merged
    assert len(old) == 2
    manifests = {manifest.uuid: manifest for manifest in open_cache(tmp_path)._library.manifests}
    assert new is not None and (manifests[new].k, manifests[new].encoding) == (6, "signal-u8")


def test_what_encoding_lost_is_known_after_a_merge(tmp_path: Path) -> None:
    records = put_texts(tmp_path, encoding="signal-u8")
    errors = [MeasuredError.of(manifest.provenance) for manifest in open_cache(tmp_path)._library.manifests]
    merge(tmp_path)
    (manifest,) = open_cache(tmp_path)._library.manifests
    merged = MeasuredError.of(manifest.provenance)
    assert merged.largest == max(error.largest for error in errors)
    found = open_cache(tmp_path).signals.get_many([record.key for record in records])
    lost = np.concatenate([f.values - r.values for f, r in zip(found, records, strict=True) if f is not None])
    assert merged.rms == pytest.approx(float(np.sqrt(np.square(lost.astype(np.float64)).mean())), rel=1e-4)
    assert manifest.origin == {}


def test_the_second_of_two_answers_is_dropped(tmp_path: Path) -> None:
    first = put_texts(tmp_path)
    open_cache(tmp_path).signals.put([replace(record, values=record.values + 1) for record in first])
    before = all_bits(open_cache(tmp_path))
    report = merge(tmp_path)
    assert (report.rows, report.dropped, report.thinned) == (len(first), len(first), 0)
    sweep(tmp_path)
    assert all_bits(open_cache(tmp_path)) == before
    assert len(names(tmp_path, "segments")) == 1


@settings(max_examples=8, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sets(st.sampled_from(range(6)), min_size=1), st.sampled_from(ENCODINGS), st.booleans()),
        min_size=2,
        max_size=7,
    )
)
def test_no_order_of_writes_and_merges_changes_an_answer(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[set[int], str, bool]]
) -> None:
    root = tmp_path_factory.mktemp("cache")
    for number, (which, encoding, merges) in enumerate(events):
        records = [respond(REQUESTS[at]) for at in sorted(which)]
        # An answer that comes later differs, as that of an engine whose sums depend on its batches.
        later = [replace(record, values=record.values + np.float32(number)) for record in records]
        open_cache(root).signals.put(later, encoding=encoding)
        if merges:
            before = all_bits(open_cache(root))
            merge(root)
            assert all_bits(open_cache(root)) == before
    before = all_bits(open_cache(root))
    merge(root)
    sweep(root)
    assert all_bits(open_cache(root)) == before
    assert open_cache(root).verify() == [] and proved(root) > 0
    shutil.rmtree(root)


@pytest.mark.parametrize("failpoint", [*FAILPOINTS, *REWRITE_FAILPOINTS])
def test_a_killed_merge_is_made_up_for_by_the_next(tmp_path: Path, failpoint: str) -> None:
    put_texts(tmp_path)
    before = all_bits(open_cache(tmp_path))
    killed_at(failpoint, lambda: merge(tmp_path))
    assert all_bits(open_cache(tmp_path)) == before
    merge(tmp_path)
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert all_bits(open_cache(tmp_path)) == before


def test_processes_that_merge_write_and_forget_at_once(tmp_path: Path) -> None:
    records = put_texts(tmp_path, TEXTS[:4])
    gone = [record.key for record in records[:3]]

    def write() -> None:
        put_texts(tmp_path, TEXTS[4:])

    def erase() -> None:
        forget(storage_of(tmp_path), identity=DIGEST, keys=gone)

    wait_for([forked(work) for work in (lambda: merge(tmp_path), write, erase, lambda: merge(tmp_path))])
    cache = open_cache(tmp_path)
    assert cache.signals.missing(REQUESTS) == (0, 1, 2)
    merge(tmp_path)
    sweep(tmp_path)
    assert open_cache(tmp_path).signals.missing(REQUESTS) == (0, 1, 2)
    assert list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True)) == sorted(
        cache.signals.keys(REQUESTS[3:])
    )


def test_a_view_outlives_the_segments_that_it_was_made_of(tmp_path: Path) -> None:
    records = put_texts(tmp_path, encoding="signal-u8")
    reader = open_cache(tmp_path)
    view = reader.signals.view([record.key for record in records], dataset="d")
    half = len(records) // 2
    batches = [np.arange(half), np.arange(half, len(records))]
    blocks = reader.signals.iter_batches(view, batches, with_tokens=True)
    first = next(blocks)
    merge(tmp_path)
    report = collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0)
    assert report.kept == (), "the view follows its rows"
    for found, original in zip(first.records() + next(blocks).records(), records, strict=True):
        assert_same_signal(found, original, encoding="signal-u8")
    assert open_cache(tmp_path).signals.holds(view)


def test_forgetting_takes_both_kinds_of_a_text_and_nothing_else(tmp_path: Path) -> None:
    signals, sequences = put_texts(tmp_path), put_each(tmp_path, list(TEXTS))
    merge(tmp_path)
    sweep(tmp_path)
    # The token that stands for a word of the text, wherever it stands.
    keys = list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda tokens: 12 in tokens))
    wanted = [record.key for record in signals if 12 in record.token_ids]
    assert set(wanted) < set(keys) and {r.key for r in sequences if r.token_ids[2] == 12} <= set(keys)
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=keys)
    assert (report.rows, report.kept, report.unreadable) == (len(keys), (), ())
    cache = open_cache(tmp_path)
    lacking = [at for at, request in enumerate(REQUESTS) if 12 in request.token_ids]
    assert cache.signals.missing(REQUESTS) == tuple(lacking)
    for record in signals:
        if record.key not in keys:
            assert_same_signal(cache.signals.get_many([record.key])[0], record)
    assert find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda tokens: 12 in tokens) == {}
    assert proved(tmp_path) == len(names(tmp_path, "manifests", suffix=".json"))


def test_pinned_signals_are_forgotten_but_their_bytes_stay(tmp_path: Path) -> None:
    records = put_texts(tmp_path, TEXTS[:2])
    view = open_cache(tmp_path).signals.view([record.key for record in records], dataset="d")
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[records[0].key])
    assert (report.pinned_by, len(report.kept)) == ((view.digest,), 1)
    assert open_cache(tmp_path).signals.get_many([records[0].key]) == [None]
    report = forget(storage_of(tmp_path), identity=DIGEST, keys=[records[0].key], break_pins=True)
    assert (report.unpinned, report.kept) == ((view.digest,), ())
    left = list(find_matches(storage_of(tmp_path), identity=DIGEST, match=lambda _: True))
    assert left == sorted(record.key for record in records[1:])


@pytest.mark.parametrize("failpoint", ["segment-before-manifest", *REWRITE_FAILPOINTS])
def test_a_killed_erasure_is_finished_by_the_next(tmp_path: Path, failpoint: str) -> None:
    records = put_texts(tmp_path, TEXTS[:1])
    keys = [records[0].key]
    killed_at(failpoint, lambda: forget(storage_of(tmp_path), identity=DIGEST, keys=keys))
    forget(storage_of(tmp_path), identity=DIGEST, keys=keys)
    merge(tmp_path)
    sweep(tmp_path)
    found = open_cache(tmp_path).signals.get_many([record.key for record in records])
    assert [record is None for record in found] == [True, False, False]
    assert len(names(tmp_path, "segments")) == 1


def test_a_merge_does_not_bring_back_what_is_forgotten_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = put_texts(tmp_path)
    replace_segments = rewriting.replace_segments

    def overtaken(*args: object, **named: object) -> object:
        monkeypatch.setattr(rewriting, "replace_segments", replace_segments)
        forget(storage_of(tmp_path), identity=DIGEST, keys=[records[2].key])
        return replace_segments(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rewriting, "replace_segments", overtaken)
    merge(tmp_path)
    assert open_cache(tmp_path).signals.get_many([records[2].key]) == [None]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_archive_of_both_kinds_gives_the_same_answers_elsewhere(tmp_path: Path, encoding: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    put_texts(here, TEXTS[:3], encoding=encoding)
    merge(here)
    put_texts(here, TEXTS[3:], encoding=encoding)
    records = put_each(here, [5, 6])
    report = export_archive(storage_of(here), tmp_path / "a.tar", identity=DIGEST)
    done = import_archive(there, tmp_path / "a.tar")
    assert (len(done.imported), done.rows) == (report.segments, len(REQUESTS) + 2)
    assert all_bits(open_cache(there)) == all_bits(open_cache(here))
    asked = requests_of([5, 6]), [record.key for record in records]
    assert everything(open_cache(there), *asked) == everything(open_cache(here), *asked)
    assert import_archive(there, tmp_path / "a.tar").imported == ()
    before = all_bits(open_cache(there))
    merge(there)
    sweep(there)
    assert all_bits(open_cache(there)) == before


def test_an_archive_changes_no_signal_that_was_given(tmp_path: Path) -> None:
    theirs = put_texts(tmp_path / "there")
    export_archive(storage_of(tmp_path / "there"), tmp_path / "a.tar", identity=DIGEST)
    mine = [replace(record, values=record.values + 1) for record in theirs]
    open_cache(tmp_path / "here").signals.put(mine)
    before = all_bits(open_cache(tmp_path / "here"))
    import_archive(tmp_path / "here", tmp_path / "a.tar")
    assert all_bits(open_cache(tmp_path / "here")) == before


def test_quotas_leave_signals_alone_as_they_do_fills(tmp_path: Path) -> None:
    from store_builders import VOCAB, make_record

    put_texts(tmp_path)
    before = all_bits(open_cache(tmp_path))
    remove_pins(storage_of(tmp_path), [before["view"]])
    rollout = make_record([9, 8, 7], prompt_len=1, finish="given", version=1)
    open_cache(tmp_path).put([rollout], vocab=VOCAB, rollout="stage")
    report = enforce_rollout_quota(storage_of(tmp_path), identity=DIGEST, max_bytes=0, grace_s=0.0)
    assert len(report.retired) == 1 and report.fits
    assert all_bits(open_cache(tmp_path)) == before
    # The limit on a whole root takes whole teachers, and one that a view of signals pins stays.
    assert enforce_quota(tmp_path, max_bytes=2**40, evict=True).evicted == ()
    remove_pins(storage_of(tmp_path), [before["view"]])
    assert enforce_quota(tmp_path, max_bytes=100, evict=True).evicted == (DIGEST,)
    assert TeacherCache.open(tmp_path, TEACHER).stats().signals == 0


def test_a_damaged_source_is_left_alone(tmp_path: Path) -> None:
    records = put_texts(tmp_path)
    hurt = names(tmp_path, "segments")[2]
    flip_bit(next((teacher_dir(tmp_path) / "segments" / hurt / "signal_f32" / "c").rglob("0/0")))
    report = merge(tmp_path)
    assert (report.damaged, report.rows) == ((hurt,), len(records) - 3)
    found = open_cache(tmp_path).signals.get_many([record.key for record in records])
    assert sum(record is None for record in found) == 3
    assert [damage.segment for damage in open_cache(tmp_path).verify()] == [hurt]


def test_garbage_of_killed_writers_goes_and_signals_stay(tmp_path: Path) -> None:
    put_texts(tmp_path, TEXTS[:1])
    before = all_bits(open_cache(tmp_path))
    for failpoint in FAILPOINTS[:-1]:
        killed_at(failpoint, lambda: put_texts(tmp_path, TEXTS[1:2]))
    assert all_bits(open_cache(tmp_path)) == before
    collect_garbage(LocalStorage(teacher_dir(tmp_path)), identity=DIGEST, dry_run=False)
    assert names(tmp_path, "staging") == [] and len(names(tmp_path, "segments")) == 1
    assert all_bits(open_cache(tmp_path)) == before
