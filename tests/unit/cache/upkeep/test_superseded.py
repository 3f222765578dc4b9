"""Rows that a fuller one has taken the place of."""

from __future__ import annotations

from pathlib import Path

from rewriting_builders import (
    everything,
    merge,
    names,
    put_answer,
    put_each,
    requests_of,
    scored_again,
    sweep,
)
from store_builders import VOCAB, flip_bit, make_record, open_cache, teacher_dir

PROMPTS = list(range(5, 11))


def test_superseded_rows_go_and_their_finish_stays(tmp_path: Path) -> None:
    first = put_answer(tmp_path, 5, k=8)
    open_cache(tmp_path).put([scored_again(first, k=8)], vocab=VOCAB)
    other = make_record([3, 4, 9, 9], prompt_len=2, k=8, finish="given")
    open_cache(tmp_path).put([other], vocab=VOCAB)
    open_cache(tmp_path).put([make_record([3, 4, 9, 9], prompt_len=2, k=8, finish="length")], vocab=VOCAB)
    before = everything(open_cache(tmp_path), requests_of([5]), [first.key, other.key])
    assert open_cache(tmp_path).get_many([other.key])[0].finish == "length"  # type: ignore[union-attr]
    report = merge(tmp_path)
    assert (report.rows, report.dropped) == (2, 2)
    sweep(tmp_path)
    assert everything(open_cache(tmp_path), requests_of([5]), [first.key, other.key]) == before


def test_a_top_up_leaves_the_text_beside_its_generation(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS, k=4)
    open_cache(tmp_path).put([scored_again(record, k=8) for record in records], vocab=VOCAB)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    report = merge(tmp_path)
    assert (report.dropped, report.thinned, report.rows) == (0, 6, 6)
    sweep(tmp_path)
    assert everything(open_cache(tmp_path), requests, keys) == before
    manifests = open_cache(tmp_path)._library.manifests
    assert sorted((item.k, item.encoding, item.scored_rows) for item in manifests) == [(0, None, 0), (8, "topk-u8", 30)]
    assert merge(tmp_path).merged == ()
    # Damage to what was scored later leaves the generations and their text.
    (scored,) = [item.uuid for item in manifests if item.k]
    path = next((teacher_dir(tmp_path) / "segments" / scored / "topk_ids" / "c").rglob("0/0"))
    flip_bit(path)
    cache = open_cache(tmp_path)
    assert cache.get_many(keys, k=8) == [None] * 6
    assert cache.missing(requests, k=0).generate == ()
    assert len(cache.missing(requests, k=8).score) >= 6


def test_rows_nobody_needs_go_altogether(tmp_path: Path) -> None:
    first = [make_record([3, 4, n, n], prompt_len=2, k=4, finish="given") for n in PROMPTS]
    open_cache(tmp_path).put(first, vocab=VOCAB)
    open_cache(tmp_path).put([scored_again(record, k=8) for record in first], vocab=VOCAB)
    before = everything(open_cache(tmp_path), [], [record.key for record in first])
    report = merge(tmp_path)
    assert report.merged[0][0] is None
    assert (report.dropped, report.rows) == (6, 0)
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert everything(open_cache(tmp_path), [], [record.key for record in first]) == before


def test_a_superseded_row_stays_while_the_fuller_one_is_damaged(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:2], k=4)
    report = open_cache(tmp_path).put([scored_again(record, k=8) for record in records], vocab=VOCAB)
    assert report is not None
    path = next((teacher_dir(tmp_path) / "segments" / report.uuid / "topk_ids" / "c").rglob("0/0"))
    flip_bit(path)
    done = merge(tmp_path)
    assert done.damaged == (report.uuid,)
    assert (done.rows, done.dropped, done.thinned) == (2, 0, 0)
    sweep(tmp_path)
    found = open_cache(tmp_path).get_many([record.key for record in records], k=4)
    assert None not in found
