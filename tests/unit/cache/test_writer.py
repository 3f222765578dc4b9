from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_builders import TEACHER, VOCAB, answer, make_record, make_request, open_cache, teacher_dir

from configs.errors import RecordError


def test_a_broken_record_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    good = make_record([3, 4, 5, 6], prompt_len=2)
    with cache.writer(vocab=VOCAB) as writer:
        writer.add(good)
        with pytest.raises(RecordError, match="NaN"):
            writer.add(dataclasses.replace(good, target_logprobs=np.full(2, np.nan, dtype=np.float32)))
        with pytest.raises(RecordError, match="its key"):
            writer.add(dataclasses.replace(good, key=bytes(32)))
        with pytest.raises(RecordError, match="commit first"):
            writer.add(make_record([3, 4, 5, 7], prompt_len=2, k=5))
        with pytest.raises(RecordError, match="exceed the limit"):
            writer.add(good, generation_key=bytes(32), max_new_tokens=1)
        with pytest.raises(RecordError, match="finish=given"):
            writer.add(make_record([3, 4, 5], prompt_len=2, finish="given"), generation_key=bytes(32))
    assert cache.stats().records == 1
    assert open_cache(tmp_path).get_many([good.key])[0] is not None


def test_one_writer_commits_segment_after_segment(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    with cache.writer(vocab=VOCAB, provenance={"engine": "fake"}, licence="apache-2.0") as writer:
        assert writer.identity_digest == TEACHER.digest()
        assert writer.commit() is None
        assert not writer.due(0.0)
        writer.add(make_record([3, 4, 5, 6], prompt_len=2, k=4))
        assert (writer.pending_rows, writer.pending_tokens) == (1, 4)
        assert writer.due(0.0) and not writer.due(3600.0)
        assert writer.due(3600.0, max_rows=2) and not writer.due(3600.0, max_rows=3)
        first = writer.commit()
        assert first is not None
        assert (first.rows, first.tokens, first.response_tokens) == (1, 4, 2)
        assert (writer.pending_rows, writer.pending_tokens) == (0, 0)
        writer.add(make_record([3, 4, 5, 7, 8], prompt_len=2, k=5))
    stats = cache.stats()
    assert (stats.records, stats.segments, stats.tokens, stats.response_tokens) == (2, 2, 9, 5)
    assert stats.bytes > first.bytes > 0
    assert stats.bytes_per_token == stats.bytes / 5
    body = json.loads((teacher_dir(tmp_path) / "manifests" / f"{first.uuid}.json").read_text())["body"]
    assert (body["provenance"], body["licence"]) == ({"engine": "fake"}, "apache-2.0")


def test_the_fuller_of_two_pending_rows_is_kept(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    text, request = answer(make_request([3, 4, 5]), k=0)
    scored = make_record(text.token_ids.tolist(), prompt_len=3, k=4, finish="given")
    orders: list[list[Any]] = [[(text, request), scored], [scored, (text, request)]]
    for order in orders:
        cache.put(order, vocab=VOCAB)
        (found,) = cache.get_many([text.key])
        assert found is not None
        assert (found.k, found.finish) == (4, "stop")
