from __future__ import annotations

import shutil
from pathlib import Path

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
from store_builders import VOCAB, flip_bit, make_record, open_cache, teacher_dir

from cache.disk.failpoints import REWRITE_FAILPOINTS
from cache.keys import generation_key
from cache.upkeep.rewriting import compact

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


def test_processes_that_merge_at_once(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    wait_for([forked(lambda: merge(tmp_path)) for _ in range(3)])
    assert everything(open_cache(tmp_path), requests, keys) == before
    # Two that end at the same moment both stand, with the same rows; the next merge drops one unless a view follows it.
    shutil.rmtree(teacher_dir(tmp_path) / "pins")
    merge(tmp_path)
    assert everything(open_cache(tmp_path), requests, keys) == before
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert everything(open_cache(tmp_path), requests, keys) == before
