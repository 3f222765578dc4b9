from __future__ import annotations

import shutil
from pathlib import Path

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
    put_answer,
    put_each,
    requests_of,
    scored_again,
    storage_of,
    sweep,
    wait_for,
)
from store_builders import VOCAB, flip_bit, make_record, make_request, open_cache, teacher_dir

from cache.disk.failpoints import REWRITE_FAILPOINTS
from cache.keys import generation_key
from cache.sampling import sample_rows
from cache.upkeep import rewriting
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import RewriteReport, compact, forget

PROMPTS = list(range(5, 11))


@pytest.mark.parametrize(("encoding", "k"), [("topk-u8", 8), ("topk-f16", 8), ("full", VOCAB), ("topk-u8", 0)])
def test_merging_changes_no_answer(tmp_path: Path, encoding: str, k: int) -> None:
    records = put_each(tmp_path, PROMPTS, encoding=encoding, k=k)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    reader = open_cache(tmp_path)
    before = everything(reader, requests, keys)
    report = merge(tmp_path)
    ((new, old),) = report.merged
    assert (report.rows, report.dropped, len(old)) == (6, 0, 6)
    assert reader.verify() == []
    # The reader of before knows both, later only the new one.
    for _ in range(2):
        assert everything(open_cache(tmp_path), requests, keys) == before
        assert everything(reader, requests, keys) == before
        assert [manifest.uuid for manifest in reader._library.manifests] == [new]
        sweep(tmp_path)
    assert names(tmp_path, "segments") == [new]
    assert names(tmp_path, "tombstones") == []
    assert merge(tmp_path).merged == ()


def test_rows_that_move_twice_keep_their_ids(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:3])
    before = everything(open_cache(tmp_path), requests_of(PROMPTS), [record.key for record in records])
    merge(tmp_path)
    records += put_each(tmp_path, PROMPTS[3:])
    merge(tmp_path)
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    after = everything(open_cache(tmp_path), requests_of(PROMPTS), [record.key for record in records[:3]])
    assert after["count"] == 6
    cache = open_cache(tmp_path)
    assert cache.view([record.key for record in records[:3]], dataset="d", k=2).digest
    assert after["records"][:3] == before["records"][:3]


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


def test_a_damaged_source_is_left_alone(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    hurt = names(tmp_path, "segments")[2]
    flip_bit(next((teacher_dir(tmp_path) / "segments" / hurt / "token_ids" / "c").rglob("0")))
    told: list[tuple[int, int]] = []
    report = compact(storage_of(tmp_path), identity=DIGEST, progress=lambda *at: told.append(at))
    assert (report.damaged, report.rows) == ((hurt,), 5)
    assert told[-1] == (report.bytes_before, report.bytes_before)
    found = open_cache(tmp_path).get_many([record.key for record in records])
    assert sum(record is None for record in found) == 1
    assert [damage.segment for damage in open_cache(tmp_path).verify()] == [hurt]


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


TERMS = st.sampled_from([{}, {"licence": "x"}, {"encoding": "topk-f16"}])
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([5, 6]),
        st.integers(2, 5),
        st.booleans(),
        st.sampled_from([0, 4, 8]),
        TERMS,
        st.sampled_from(["generate", "generate", "score", "merge"]),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=9,
)


@settings(max_examples=10)
@given(events=EVENTS)
def test_no_order_of_writes_and_merges_changes_an_answer(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple]
) -> None:
    root = tmp_path_factory.mktemp("cache")
    requests, keys = requests_of([5, 6], limits=range(1, 7)), list[bytes]()
    for prompt, length, stop, k, terms, kind, variant in events:
        if kind == "merge":
            before = everything(open_cache(root), requests, keys)
            merge(root)
            assert everything(open_cache(root), requests, keys) == before
            continue
        tokens = [3, 4, prompt, *([10 + variant] * (length - 1)), 1 if stop else 9]
        finish = "given" if kind == "score" else "stop" if stop else "length"
        record = make_record(tokens, prompt_len=3, k=k, finish=finish, seed=len(keys))  # type: ignore[arg-type]
        keys.append(record.key)
        with open_cache(root).writer(vocab=VOCAB, **terms) as writer:
            if kind == "score":
                writer.add(record)
            else:
                name = generation_key(DIGEST, requests_of([prompt], limits=[9])[0])
                writer.add(record, generation_key=name, max_new_tokens=length)
    before = everything(open_cache(root), requests, keys)
    merge(root)
    assert everything(open_cache(root), requests, keys) == before
    sweep(root)
    assert everything(open_cache(root), requests, keys) == before
    assert open_cache(root).verify() == []
    shutil.rmtree(root)


@pytest.mark.parametrize("failpoint", REWRITE_FAILPOINTS)
def test_a_killed_merge_is_made_up_for_by_the_next(tmp_path: Path, failpoint: str) -> None:
    records = put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    killed_at(failpoint, lambda: merge(tmp_path))
    assert everything(open_cache(tmp_path), requests, keys) == before
    merge(tmp_path)
    assert everything(open_cache(tmp_path), requests, keys) == before
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert open_cache(tmp_path).stats().segments == 1
    assert everything(open_cache(tmp_path), requests, keys) == before


def test_two_merges_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    reports: list[RewriteReport] = []
    replace = rewriting.replace_segments

    def overtaken(*args: object, **named: object) -> object:
        monkeypatch.setattr(rewriting, "replace_segments", replace)
        reports.append(merge(tmp_path))
        return replace(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rewriting, "replace_segments", overtaken)
    reports.append(merge(tmp_path))
    assert [len(report.merged) for report in reports] == [1, 0], "the second takes its segment back"
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert everything(open_cache(tmp_path), requests, keys) == before


def test_processes_that_merge_at_once(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    wait_for([forked(lambda: merge(tmp_path)) for _ in range(3)])
    assert everything(open_cache(tmp_path), requests, keys) == before
    merge(tmp_path)
    assert everything(open_cache(tmp_path), requests, keys) == before
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert everything(open_cache(tmp_path), requests, keys) == before


def test_a_view_outlives_the_segments_that_it_was_made_of(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    reader = open_cache(tmp_path)
    view = reader.view([record.key for record in records], dataset="d", k=8)
    blocks = reader.iter_blocks(view, [np.arange(3), np.arange(3, 6)])
    first = next(blocks)
    merge(tmp_path)
    report = collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0)
    assert report.kept == (), "the view follows its rows"
    second = next(blocks)
    assert [record.key for record in first + second] == [record.key for record in records]
    sweep(tmp_path)
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.arange(6)])
    for now, then in zip(block, first + second, strict=True):
        np.testing.assert_array_equal(now.topk_logprobs, then.topk_logprobs)


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
