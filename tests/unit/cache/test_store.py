from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
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
    teacher_dir,
)

from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from cache.store import Missing, TeacherCache
from configs.errors import CacheError, ConfigError, RecordError

PROMPTS = [[3, 4, number] for number in range(5, 15)]


def scored(record: TeacherRecord) -> tuple[np.ndarray, np.ndarray]:
    assert record.topk_ids is not None and record.topk_logprobs is not None
    return record.topk_ids, record.topk_logprobs


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


def test_a_manifest_moved_to_another_teacher_is_refused(tmp_path: Path) -> None:
    open_cache(tmp_path).put([make_record([3, 4, 5], prompt_len=1)], vocab=VOCAB)
    open_cache(tmp_path, identity=OTHER_TEACHER)
    (manifest,) = (teacher_dir(tmp_path) / "manifests").glob("*.json")
    (teacher_dir(tmp_path, identity=OTHER_TEACHER) / "manifests" / manifest.name).write_bytes(manifest.read_bytes())
    with pytest.raises(CacheError, match="belongs to teacher"):
        open_cache(tmp_path, identity=OTHER_TEACHER)


def test_commits_of_others_are_seen_after_refresh(tmp_path: Path) -> None:
    reader, writer = open_cache(tmp_path), open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    writer.put([(record, request)], vocab=VOCAB)
    assert reader.lookup([request]) == [None]
    reader.refresh()
    assert reader.lookup([request]) == [record.key]


def test_the_segment_is_plain_zarr(tmp_path: Path) -> None:
    records = [make_record([*prompt, 7, STOP], prompt_len=3) for prompt in PROMPTS]
    report = open_cache(tmp_path).put(records, vocab=VOCAB)
    assert report is not None
    segment = teacher_dir(tmp_path) / "segments" / report.uuid
    group: Any = zarr.open_group(segment, mode="r")
    np.testing.assert_array_equal(group["token_ids"][:], np.concatenate([record.token_ids for record in records]))
    np.testing.assert_array_equal(group["topk_ids"][:], np.concatenate([scored(record)[0] for record in records]))
    np.testing.assert_array_equal(group["row_offsets"][:], np.arange(0, 21, 2))
    steps = np.cumsum(group["topk_dq"][:].astype(np.int64), axis=1)
    logprobs = group["top1_logprob"][:][:, None] - steps / 16
    np.testing.assert_allclose(logprobs, np.concatenate([scored(record)[1] for record in records]), atol=0.035)
    described = json.loads((segment / "topk_ids" / "zarr.json").read_text())
    codecs = described["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in codecs] == ["bytes", "blosc", "crc32c"]


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


def test_blocks_do_not_alias_the_cache(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2)
    cache.put([record], vocab=VOCAB)
    (first,) = cache.get_many([record.key])
    assert first is not None and first.topk_ids is not None
    first.topk_ids[:] = 0
    first.token_ids[:] = 0
    assert_same_text(cache.get_many([record.key])[0], record)


def test_a_view_of_a_missing_row_is_refused(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2, k=4)
    cache.put([record], vocab=VOCAB)
    with pytest.raises(CacheError, match=r"1 of 2 rows .*k=4"):
        cache.view([record.key, bytes(32)], dataset="train", k=4)
    with pytest.raises(CacheError, match="k=5"):
        cache.view([record.key], dataset="train", k=5)


def test_a_view_pins_its_segments(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2)
    cache.put([record], vocab=VOCAB)
    view = cache.view([record.key], dataset="train", k=4)
    pin = json.loads((teacher_dir(tmp_path) / "pins" / f"{view.digest}.json").read_text())
    assert time.time() - pin.pop("used") < 600
    assert (pin["view"], pin["dataset"], pin["segments"]) == (view.digest, "train", list(view.segments))
    assert (pin["rows"], pin["tokens"], pin["response_tokens"], pin["k"]) == (1, 4, 2, 4)
    assert cache.view([record.key], dataset="train", k=4).digest == view.digest


def test_places_that_cannot_be_a_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache of this teacher"):
        TeacherCache.open(tmp_path / "nowhere", TEACHER, create=False)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*runtime\.cache_root"):
        TeacherCache.open(tmp_path / "file", TEACHER)
    with pytest.raises(RecordError, match="unknown"):
        open_cache(tmp_path).writer(vocab=VOCAB, encoding="zip")


def test_an_unwritable_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(tmp_path)
    monkeypatch.setattr("cache.disk.local_storage.os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable"):
        TeacherCache.open(tmp_path, TEACHER)
    assert TeacherCache.open(tmp_path, TEACHER, create=False).stats().records == 0


def test_a_future_format_is_refused_by_its_number(tmp_path: Path) -> None:
    open_cache(tmp_path)
    described = teacher_dir(tmp_path) / "identity.json"
    body = json.loads(described.read_text())
    described.write_text(json.dumps({**body, "format": 7}))
    with pytest.raises(CacheError, match=r"format 7.*upgrade"):
        open_cache(tmp_path)
    described.write_text("{")
    with pytest.raises(CacheError, match="delete this file"):
        open_cache(tmp_path)
    described.unlink()
    open_cache(tmp_path)
    assert json.loads(described.read_text()) == body


def test_a_place_of_another_teacher_is_an_error_that_names_both(tmp_path: Path) -> None:
    open_cache(tmp_path)
    theirs = teacher_dir(tmp_path, identity=OTHER_TEACHER)
    open_cache(tmp_path, identity=OTHER_TEACHER)
    (theirs / "identity.json").write_bytes((teacher_dir(tmp_path) / "identity.json").read_bytes())
    with pytest.raises(CacheError, match=rf"{TEACHER.digest()}, not {OTHER_TEACHER.digest()}"):
        open_cache(tmp_path, identity=OTHER_TEACHER)
