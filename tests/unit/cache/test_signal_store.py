from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_builders import CLASSES, ENCODINGS, STATES, TAGS, ask, assert_same_signal, respond, some_requests
from store_builders import OTHER_TEACHER, TEACHER, VOCAB, answer, flip_bit, make_request, open_cache, teacher_dir

from cache.batches import global_batches
from cache.claims import Claims
from cache.disk.local_storage import LocalStorage
from cache.disk.spending import Spent
from cache.pins import read_pins
from cache.signals import Signal, SignalRequest
from cache.store import TeacherCache
from configs.errors import CacheError, RecordError

TEXT = (3, 7, 8, 9)
LAYERS = [Signal("state", layer=layer, position="first") for layer in range(6)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_kept_is_answered_by_another_process_and_after_other_commits(tmp_path: Path, encoding: str) -> None:
    requests = some_requests(11)
    records = [respond(request) for request in requests]
    first, second = open_cache(tmp_path), open_cache(tmp_path)
    first.signals.put(records[:20], encoding=encoding)
    second.refresh()
    assert second.signals.missing(requests) == tuple(range(20, len(requests)))
    second.signals.put(records[20:], encoding=encoding)
    for cache in (second, open_cache(tmp_path), pickle.loads(pickle.dumps(first))):
        assert cache.signals.missing(requests) == ()
        for found, record in zip(cache.signals.get_many([r.key for r in records]), records, strict=True):
            assert_same_signal(found, record, encoding=encoding)
        assert cache.verify() == []
        assert (cache.stats().signals, cache.stats().records) == (len(records), 0)


@settings(max_examples=25, deadline=None)
@given(
    held=st.sets(st.tuples(st.integers(0, 3), st.sampled_from(LAYERS)), min_size=1),
    asked=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(LAYERS)), max_size=12),
)
def test_any_subset_in_any_order_is_a_hit_and_the_rest_is_missing_once(
    tmp_path_factory: pytest.TempPathFactory, held: set[tuple[int, Signal]], asked: list[tuple[int, Signal]]
) -> None:
    def request(of: tuple[int, Signal]) -> SignalRequest:
        return ask([3, 10 + of[0], 5], of[1])

    cache = open_cache(tmp_path_factory.mktemp("partial"))
    cache.signals.put([respond(request(of)) for of in sorted(held)])
    lacking = [at for at, of in enumerate(asked) if of not in held and of not in asked[:at]]
    assert cache.signals.missing([request(of) for of in asked]) == tuple(lacking)
    found = cache.signals.get_many(cache.signals.keys([request(of) for of in asked]))
    for of, record in zip(asked, found, strict=True):
        if of in held:
            assert_same_signal(record, respond(request(of)))
        else:
            assert record is None


SIGNALS = st.sampled_from([CLASSES, TAGS, *STATES, Signal("state", layer=2**15 - 1, position="last")])
TOKENS = st.lists(st.sampled_from([0, 1, 7, 2**31 - 1]) | st.integers(0, 2**31 - 1), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None)
@given(
    asked=st.lists(st.tuples(TOKENS, st.integers(0, 19), SIGNALS), min_size=1, max_size=8),
    width=st.integers(1, 40),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]),
    encoding=st.sampled_from(ENCODINGS),
    cuts=st.lists(st.integers(1, 7), max_size=2),
)
def test_any_signals_in_any_segments_come_back_as_they_were_put(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[list[int], int, Signal]],
    width: int,
    scale: float,
    encoding: str,
    cuts: list[int],
) -> None:
    requests = [ask(tokens, signal, split=1 + split % len(tokens)) for tokens, split, signal in asked]
    records = list({r.key: r for r in (respond(request, width=width, scale=scale) for request in requests)}.values())
    root = tmp_path_factory.mktemp("any")
    for start, stop in pairwise([0, *sorted(set(cuts)), len(records)]):
        open_cache(root).signals.put(records[start:stop], encoding=encoding)
    cache, keys = open_cache(root), [record.key for record in records]
    for found, record in zip(cache.signals.get_many(keys), records, strict=True):
        assert_same_signal(found, record, encoding=encoding)
    view = cache.signals.view(keys[::-1], dataset="d")
    (block,) = cache.signals.iter_batches(view, [np.arange(len(keys))], with_tokens=True)
    for found, record in zip(block.records(), records[::-1], strict=True):
        assert_same_signal(found, record, encoding=encoding)


def test_a_subset_of_layers_another_order_and_another_epoch_are_hits_and_nothing_else_is(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.signals.put([respond(ask(TEXT, layer, split=2)) for layer in LAYERS[1:4]])
    subset = [ask(TEXT, layer, split=2) for layer in (LAYERS[3], LAYERS[1])]
    assert cache.signals.missing(subset) == cache.signals.missing(subset * 2) == ()
    view = cache.signals.view(cache.signals.keys(subset), dataset="d")
    epochs = [global_batches(view, seed=0, epoch=epoch, tokens_per_batch=4) for epoch in (0, 1)]
    for batches in epochs:
        blocks = list(cache.signals.iter_batches(view, batches))
        assert sum(len(block) for block in blocks) == 2
    others = {
        "another layer": ask(TEXT, LAYERS[4], split=2),
        "another split": ask(TEXT, LAYERS[1], split=3),
        "one text": ask(TEXT, LAYERS[1]),
        "another position": ask(TEXT, replace(LAYERS[1], position="last"), split=2),
        "another signal": ask(TEXT, CLASSES, split=2),
        "a token less": ask(TEXT[:-1], LAYERS[1], split=2),
    }
    for what, other in others.items():
        assert cache.signals.missing([other]) == (0,), what
        assert cache.signals.get_many(cache.signals.keys([other])) == [None], what
    elsewhere = TeacherCache.open(tmp_path, OTHER_TEACHER)
    assert elsewhere.signals.missing(subset) == (0, 1), "another teacher"


@pytest.mark.parametrize("prefetch", [0, 2])
def test_blocks_of_a_view_are_its_rows_in_the_order_asked_for(tmp_path: Path, prefetch: int) -> None:
    records = [respond(request) for request in some_requests(20)]
    cache = TeacherCache.open(tmp_path, TEACHER, cache_bytes=4000)
    for start in range(0, len(records), 17):
        cache.signals.put(records[start : start + 17], encoding="signal-u8")
    view = cache.signals.view([record.key for record in records], dataset="train")
    assert (len(view), view.k, view.tokens) == (len(records), 6, sum(len(r.token_ids) for r in records))
    order = np.array_split(np.random.default_rng(0).permutation(len(records)), 5)
    for block, positions in zip(
        cache.signals.iter_batches(view, order, with_tokens=True, prefetch=prefetch), order, strict=True
    ):
        for found, at in zip(block.records(), positions.tolist(), strict=True):
            assert_same_signal(found, records[at], encoding="signal-u8")
    assert cache.signals.holds(view)
    assert [pin.view for pin in read_pins(LocalStorage(teacher_dir(tmp_path)))] == [view.digest]
    assert open_cache(tmp_path).signals.view([r.key for r in records], dataset="train").digest == view.digest


def test_a_view_has_one_width_and_all_of_its_rows(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    wide, narrow = respond(ask(TEXT, STATES[0]), width=8), respond(ask(TEXT, CLASSES), width=3)
    for record in (wide, narrow):
        cache.signals.put([record])
    with pytest.raises(CacheError, match=r"view d: signals of \[3, 8\] values a row"):
        cache.signals.view([wide.key, narrow.key], dataset="d")
    with pytest.raises(CacheError, match="1 of 2 rows are not in the cache with k=8"):
        cache.signals.view([wide.key, bytes(32)], dataset="d")
    assert len(cache.signals.view([wide.key, wide.key], dataset="d")) == 1


def test_neither_kind_is_read_as_the_other(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    signal = respond(ask(TEXT, TAGS))
    (record, request) = answer(make_request(TEXT))
    cache.signals.put([signal])
    cache.put([(record, request)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        for k in (None, 0, 1):
            with pytest.raises(CacheError, match=f"key {signal.key.hex()[:12]} names a signal.*TeacherCache.signals"):
                window.get_many([record.key, signal.key], k=k)
        with pytest.raises(CacheError, match="names a signal"):
            window.view([signal.key], dataset="d", k=1)
        with pytest.raises(CacheError, match=f"key {record.key.hex()[:12]} names a sequence.*ask TeacherCache for it"):
            window.signals.get_many([signal.key, record.key])
        with pytest.raises(CacheError, match="names a sequence"):
            window.signals.view([record.key], dataset="d")
        of_signals, of_records = (
            window.signals.view([signal.key], dataset="d"),
            window.view([record.key], dataset="d", k=8),
        )
        for read, view in ((window.signals.iter_batches, of_records), (window.iter_batches, of_signals)):
            with pytest.raises(CacheError, match="read by other functions"):
                next(iter(read(view, [np.arange(1)])))  # type: ignore[operator]
        assert window.holds(of_signals) and window.holds(of_records) and not window.signals.holds(of_records)
        assert window.missing([request], k=8).generate == ()
        assert window.sample(9, k=0) == [record.key]
        stats = window.stats()
        assert (stats.records, stats.signals, stats.segments, stats.tokens) == (1, 1, 2, len(record.token_ids))


def test_the_oldest_of_two_answers_counts(tmp_path: Path) -> None:
    first = respond(ask(TEXT))
    second = replace(first, values=first.values + 1)
    for record in (first, second):
        open_cache(tmp_path).signals.put([record])
    assert_same_signal(open_cache(tmp_path).signals.get_many([first.key])[0], first)


def test_damage_is_a_miss_and_filled_again(tmp_path: Path) -> None:
    requests = some_requests(4)
    records = [respond(request) for request in requests]
    cache = open_cache(tmp_path)
    report = cache.signals.put(records)
    assert report is not None
    flip_bit(next((teacher_dir(tmp_path) / "segments" / report.uuid / "signal_f32" / "c").rglob("0/0")), at=0.4)
    fresh = open_cache(tmp_path)
    assert fresh.signals.get_many([record.key for record in records]) == [None] * len(records)
    assert fresh.signals.missing(requests) == tuple(range(len(requests)))
    fresh.signals.put(records)
    assert open_cache(tmp_path).signals.missing(requests) == ()


def test_terms_of_a_writer_stand_in_the_manifest(tmp_path: Path) -> None:
    cache = TeacherCache.open(tmp_path, TEACHER, provenance={"model": "m"})
    with cache.signals.writer(encoding="signal-u8", provenance={"engine": "e"}, licence="mit") as writer:
        writer.add(respond(ask(TEXT)))
        writer.commit(Spent(seconds=2.0))
    (manifest,) = cache._library.manifests
    assert (manifest.origin, manifest.licence, manifest.vocab) == ({"model": "m", "engine": "e"}, "mit", 0)
    assert float(manifest.provenance["error_largest"]) >= float(manifest.provenance["error_rms"]) > 0
    tokens, spent = cache.spent(cache.signals.keys([ask(TEXT)]), k=0)
    assert (tokens, spent.seconds) == (len(TEXT), 2.0)
    with pytest.raises(RecordError, match="encoding=topk-u8 is unknown for signals"):
        cache.signals.writer(encoding="topk-u8")
    assert cache.signals.put([]) is None


def test_pipelines_that_fill_at_once_claim_signals_by_their_keys(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    keys, storage = cache.signals.keys(some_requests(3)), LocalStorage(teacher_dir(tmp_path))
    with Claims(storage).claim(keys[:4], k=0) as first, Claims(storage).claim(keys, k=0) as second:
        assert first.mine.all()
        assert second.mine.tolist() == [False] * 4 + [True] * (len(keys) - 4)
