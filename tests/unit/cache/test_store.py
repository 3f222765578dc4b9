from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_builders import (
    OTHER_TEACHER,
    STOP,
    TEACHER,
    VOCAB,
    answer,
    assert_same_text,
    make_record,
    make_request,
    open_cache,
)

from cache.records import GenerateRequest, ScoreRequest
from cache.store import Missing, TeacherCache
from configs.errors import CacheError, ConfigError, RecordError

PROMPTS = [[3, 4, number] for number in range(5, 15)]


def test_an_empty_cache_misses_everything(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    given = ScoreRequest(token_ids=(3, 4, 5), prompt_len=1)
    requests: list[GenerateRequest | ScoreRequest] = [make_request(PROMPTS[0]), given]
    assert cache.missing(requests, k=8) == Missing(generate=(0,), score=((1, given),))
    assert cache.missing(requests, k=0) == Missing(generate=(0,), score=((1, given),))
    assert cache.lookup(requests) == [None, None]
    assert cache.missing([], k=8) == Missing(generate=(), score=())
    assert cache.get_many([]) == []
    assert cache.stats().records == 0
    assert cache.verify() == []


@pytest.mark.parametrize("encoding", ["topk-u8", "topk-f16"])
def test_records_come_back_as_they_were(tmp_path: Path, encoding: str) -> None:
    records = [
        make_record([*prompt, 7, 8, STOP], prompt_len=3, version=None if at % 2 else at)
        for at, prompt in enumerate(PROMPTS)
    ]
    records.append(make_record([3, 4], prompt_len=2))
    records.append(make_record([9, 9, 9, 9], prompt_len=1, k=0, finish="given"))
    open_cache(tmp_path).put(records, vocab=VOCAB, encoding=encoding)
    stored = open_cache(tmp_path).get_many([record.key for record in reversed(records)])
    for found, original in zip(stored, reversed(records), strict=True):
        assert_same_text(found, original)
        if found is not None and found.topk_logprobs is not None and original.topk_logprobs is not None:
            np.testing.assert_allclose(found.topk_logprobs, original.topk_logprobs, atol=0.13)


def test_two_teachers_never_share_a_row(tmp_path: Path) -> None:
    cache, other = open_cache(tmp_path), open_cache(tmp_path, identity=OTHER_TEACHER)
    record, request = answer(make_request(PROMPTS[0]))
    cache.put([(record, request)], vocab=VOCAB)
    other.refresh()
    assert other.missing(
        [request, ScoreRequest(tuple(record.token_ids.tolist()), record.prompt_len)], k=1
    ).generate == (0,)
    assert other.get_many([record.key]) == [None]
    with pytest.raises(RecordError, match="key is not that of its tokens and teacher"):
        other.put([(record, request)], vocab=VOCAB)
    view = cache.view([record.key], dataset="d", k=8)
    with pytest.raises(CacheError, match="teacher"):
        other.iter_blocks(view, [np.array([0])])


def test_rows_of_many_chunks_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 7)
    rng = np.random.default_rng(0)
    records = [
        make_record(rng.integers(2, VOCAB, size=int(n)).tolist(), prompt_len=2) for n in rng.integers(3, 20, size=60)
    ]
    cache = open_cache(tmp_path)
    cache.put(records, vocab=VOCAB)
    fresh = TeacherCache.open(tmp_path, TEACHER, cache_bytes=2000)
    view = fresh.view([record.key for record in records], dataset="d", k=8)
    order = rng.permutation(60)
    blocks = list(fresh.iter_blocks(view, np.split(order, [5, 5, 31])))
    assert [len(block) for block in blocks] == [5, 0, 26, 29]
    for found, at in zip([record for block in blocks for record in block], order.tolist(), strict=True):
        assert_same_text(found, records[at])


def test_a_view_of_a_missing_row_is_refused(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2, k=4)
    cache.put([record], vocab=VOCAB)
    with pytest.raises(CacheError, match=r"1 of 2 rows .*k=4"):
        cache.view([record.key, bytes(32)], dataset="train", k=4)
    with pytest.raises(CacheError, match="k=5"):
        cache.view([record.key], dataset="train", k=5)


def test_places_that_cannot_be_a_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache of this teacher"):
        TeacherCache.open(tmp_path / "nowhere", TEACHER, create=False)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*runtime\.cache_root"):
        TeacherCache.open(tmp_path / "file", TEACHER)
    with pytest.raises(RecordError, match="unknown"):
        open_cache(tmp_path).writer(vocab=VOCAB, encoding="zip")
