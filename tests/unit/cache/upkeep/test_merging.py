"""Which segments go into one, and what of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rewriting_builders import (
    DIGEST,
    everything,
    merge,
    put_answer,
    put_each,
    requests_of,
    storage_of,
    sweep,
)
from store_builders import VOCAB, make_record, make_request, open_cache

from cache.keys import generation_key
from cache.sampling import sample_rows
from cache.upkeep.rewriting import forget

PROMPTS = list(range(5, 11))


def test_outputs_are_bounded(tmp_path: Path) -> None:
    put_each(tmp_path, PROMPTS)
    report = merge(tmp_path, max_rows=12)
    assert [len(old) for _, old in report.merged] == [2, 2, 2]
    assert merge(tmp_path, max_rows=12).merged == (), "half full is full enough"
    assert [len(old) for _, old in merge(tmp_path, max_rows=32).merged] == [3]


def test_segments_of_different_terms_stay_apart(tmp_path: Path) -> None:
    put_answer(tmp_path, 5, licence="a")
    put_answer(tmp_path, 6, licence="b")
    put_answer(tmp_path, 7, provenance={"engine": "x"})
    put_answer(tmp_path, 8, encoding="topk-f16")
    put_answer(tmp_path, 9, k=4)
    put_answer(tmp_path, 10, k=0)
    assert merge(tmp_path).merged == ()
    put_answer(tmp_path, 11, licence="a")
    assert len(merge(tmp_path).merged) == 1
    (manifest,) = [item for item in open_cache(tmp_path)._library.manifests if item.rows == 2]
    assert manifest.licence == "a"


def test_generations_keep_the_oldest_that_reaches(tmp_path: Path) -> None:
    # Answers of one request that differ, as those of an engine whose sums depend on its batches.
    for number, (length, stop) in enumerate([(3, False), (2, False), (5, False), (5, False), (6, True), (7, True)]):
        request = requests_of([5], limits=[max(length, 5)])[0]
        tokens = [*request.prompt_ids, *([20 + number] * (length - 1)), 1 if stop else 30]
        record = make_record(tokens, prompt_len=3, finish="stop" if stop else "length")
        with open_cache(tmp_path).writer(vocab=VOCAB) as writer:
            writer.add(record, generation_key=generation_key(DIGEST, request), max_new_tokens=length)
    requests = requests_of([5], limits=range(1, 10))
    before = everything(open_cache(tmp_path), requests, [])
    report = merge(tmp_path)
    assert (report.rows, report.dropped, report.dropped_generations) == (6, 0, 3)
    sweep(tmp_path)
    assert everything(open_cache(tmp_path), requests, []) == before
    merge(tmp_path)
    assert everything(open_cache(tmp_path), requests, []) == before


def test_a_merge_ends_before_it_passes_an_older_answer(tmp_path: Path) -> None:
    put_answer(tmp_path, 7, licence="a")
    put_answer(tmp_path, 5, length=3, stop=False, limit=3, licence="b")
    # Another text for the same request, which is asked for only where the older one does not reach.
    request = requests_of([5], limits=[5])[0]
    record = make_record([*request.prompt_ids, 20, 21, 22, 23, 24], prompt_len=3, finish="length")
    open_cache(tmp_path).put([(record, request)], vocab=VOCAB, licence="a")
    requests = requests_of([5, 7], limits=range(1, 8))
    before = everything(open_cache(tmp_path), requests, [record.key])
    assert merge(tmp_path).merged == ()
    put_answer(tmp_path, 8, licence="a")
    assert len(merge(tmp_path).merged) == 1
    assert everything(open_cache(tmp_path), requests, [record.key])["lookup"] == before["lookup"]


def test_a_text_that_is_not_the_oldest_stays_younger(tmp_path: Path) -> None:
    put_answer(tmp_path, 7, k=0, licence="a")
    first = put_answer(tmp_path, 5, k=0, licence="b")
    # Another request gets the same text, so the younger row has to stay for it.
    open_cache(tmp_path).put([(first, make_request([3, 4, 5], temperature=1.0))], vocab=VOCAB, licence="a")
    view = open_cache(tmp_path).view([first.key], dataset="text", k=0)
    for _ in range(2):
        merge(tmp_path)
        assert open_cache(tmp_path).view([first.key], dataset="text", k=0).digest == view.digest
        sweep(tmp_path)
        put_answer(tmp_path, 8, k=0, licence="b")
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.arange(1)])
    assert block[0].key == first.key


def test_draws_of_different_widths_are_merged(tmp_path: Path) -> None:
    wholes = put_each(tmp_path, PROMPTS[:2], k=VOCAB, encoding="full")
    draws = [sample_rows(whole, draws=n, seed=1) for whole, n in zip(wholes, (2, 40), strict=True)]
    for record in draws:
        open_cache(tmp_path).put([record], vocab=VOCAB, encoding="sampled")
    keys = [record.key for record in draws]
    before = open_cache(tmp_path).get_many(keys)
    assert len(merge(tmp_path).merged) == 2
    sweep(tmp_path)
    for now, then, original in zip(open_cache(tmp_path).get_many(keys), before, draws, strict=True):
        assert now is not None and then is not None
        np.testing.assert_array_equal(now.counts, then.counts)
        np.testing.assert_array_equal(now.counts, original.counts)
        np.testing.assert_array_equal(now.topk_ids, original.topk_ids)
        assert (now.sampled_from, now.sampling_seed) == (original.sampled_from, 1)
    forget(storage_of(tmp_path), identity=DIGEST, keys=[wholes[0].key])
    found = open_cache(tmp_path).get_many([*keys, wholes[0].key, wholes[1].key])
    assert [record is None for record in found] == [True, False, True, False], "what was drawn from it goes too"
