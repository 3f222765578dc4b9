from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
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

from cache.disk.owners import Owner
from cache.keys import generation_key, sequence_key
from cache.records import Finish, GenerateRequest, ScoreRequest, TeacherRecord
from cache.store import Missing, TeacherCache
from configs.errors import CacheError, ConfigError, RecordError

PROMPTS = [[3, 4, number] for number in range(5, 15)]
NOTHING = Missing(generate=(), score=())


def scored(record: TeacherRecord) -> tuple[np.ndarray, np.ndarray]:
    assert record.topk_ids is not None and record.topk_logprobs is not None
    return record.topk_ids, record.topk_logprobs


def keys_of(cache: TeacherCache, requests: Sequence[GenerateRequest], *, k: int) -> list[bytes]:
    return [key for key in cache.lookup(requests, k=k) if key is not None]


def sequence_of(record: TeacherRecord) -> ScoreRequest:
    return ScoreRequest(token_ids=tuple(record.token_ids.tolist()), prompt_len=record.prompt_len)


def test_an_empty_cache_misses_everything(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    given = ScoreRequest(token_ids=(3, 4, 5), prompt_len=1)
    requests: list[GenerateRequest | ScoreRequest] = [make_request(PROMPTS[0]), given]
    assert cache.missing(requests, k=8) == Missing(generate=(0,), score=((1, given),))
    assert cache.missing(requests, k=0) == Missing(generate=(0,), score=((1, given),))
    assert cache.lookup(requests) == [None, None]
    assert cache.missing([], k=8) == NOTHING
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


def test_what_was_asked_is_a_hit_and_only_that(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    requests = [make_request(prompt) for prompt in PROMPTS]
    answers = [answer(request) for request in requests[:6]]
    cache.put(answers, vocab=VOCAB)
    assert cache.missing(requests[:3], k=8) == NOTHING
    assert cache.missing(requests, k=8) == Missing(generate=(6, 7, 8, 9), score=())
    assert cache.lookup(requests, k=8) == [record.key for record, _ in answers] + [None] * 4
    other = dataclasses.replace(requests[0], temperature=0.5)
    assert cache.missing([other], k=8) == Missing(generate=(0,), score=())


def test_subsets_supersets_and_other_orders_are_hits(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    few = [make_request(prompt, temperature=0.7, seed=seed) for prompt in PROMPTS[:4] for seed in (0, 1)]
    cache.put([answer(request) for request in few], vocab=VOCAB)
    again = few[::-1][2:] + few[:3]
    assert cache.missing(again, k=8) == NOTHING
    assert None not in cache.lookup(again, k=8)
    # More samples a prompt, and further prompts among the old ones: only what is new is asked for.
    more = [make_request(prompt, temperature=0.7, seed=seed) for prompt in PROMPTS[:5] for seed in (1, 2, 0)]
    wanted = tuple(at for at, request in enumerate(more) if request not in few)
    assert cache.missing(more, k=8) == Missing(generate=wanted, score=())
    assert cache.missing(more, k=3).generate == wanted


def test_scoring_what_was_generated_is_a_hit(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    cache.put([(record, request)], vocab=VOCAB)
    assert cache.missing([sequence_of(record)], k=8) == NOTHING
    assert cache.lookup([sequence_of(record)], k=8) == [record.key]


def test_a_smaller_k_is_a_hit_and_a_larger_one_a_score(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]), k=8)
    cache.put([(record, request)], vocab=VOCAB)
    assert cache.missing([request], k=3) == NOTHING
    assert cache.missing([request], k=9) == Missing(generate=(), score=((0, sequence_of(record)),))
    assert cache.lookup([request], k=9) == [None]
    assert cache.get_many([record.key], k=9) == [None]
    (cut,) = cache.get_many([record.key], k=3)
    (whole,) = cache.get_many([record.key])
    assert cut is not None and whole is not None
    assert cut.k == 3
    assert cut.topk_ids is not None and record.topk_ids is not None
    np.testing.assert_array_equal(cut.topk_ids, record.topk_ids[:, :3])
    mass = np.exp(np.asarray(cut.topk_logprobs, dtype=np.float64)).sum(axis=1) + np.exp(np.asarray(cut.tail_logmass))
    np.testing.assert_allclose(mass, 1.0, atol=1e-5)
    text = cache.get_many([record.key], k=0)[0]
    assert text is not None and text.topk_ids is None


def test_text_alone_is_topped_up_by_a_score_and_the_fuller_row_wins(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    text, request = answer(make_request(PROMPTS[0]), k=0)
    cache.put([(text, request)], vocab=VOCAB)
    assert cache.missing([request], k=0) == NOTHING
    missing = cache.missing([request], k=4)
    assert missing == Missing(generate=(), score=((0, sequence_of(text)),))
    scored = make_record(missing.score[0][1].token_ids, prompt_len=3, k=4, finish="given")
    cache.put([scored], vocab=VOCAB)
    cache.put([make_record(text.token_ids.tolist(), prompt_len=3, k=2, finish="given", seed=1)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert window.missing([request], k=4) == NOTHING
        (found,) = window.get_many(keys_of(window, [request], k=4))
        assert found is not None
        assert found.k == 4
        assert found.finish == "stop", "how it ended is known from the generation"
        assert window.stats().records == 1


def test_of_equal_rows_the_oldest_wins(tmp_path: Path) -> None:
    first, request = answer(make_request(PROMPTS[0]))
    second = dataclasses.replace(first, target_logprobs=np.full(5, -3, dtype=np.float32))
    cache = open_cache(tmp_path)
    cache.put([(first, request)], vocab=VOCAB)
    cache.put([(second, request)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert_same_text(window.get_many([first.key])[0], first)


def test_an_answer_that_stopped_serves_every_larger_limit(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=8), length=5)
    cache.put([(record, request)], vocab=VOCAB)
    for limit in (5, 6, 8, 1000):
        wanted = dataclasses.replace(request, max_new_tokens=limit)
        assert cache.missing([wanted], k=8) == NOTHING
        assert cache.lookup([wanted]) == [record.key]


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_longer_answer_serves_a_smaller_limit_as_its_prefix(tmp_path: Path, finish: Finish) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=5), length=5, finish=finish)
    cache.put([(record, request)], vocab=VOCAB)
    short = dataclasses.replace(request, max_new_tokens=2)
    assert cache.missing([short], k=8) == NOTHING
    (key,) = cache.lookup([short], k=8)
    assert key is not None
    assert key == sequence_key(TEACHER.digest(), record.token_ids[:5], 3)
    (found,) = cache.get_many([key])
    assert found is not None
    assert found.finish == "length"
    np.testing.assert_array_equal(found.token_ids, record.token_ids[:5])
    np.testing.assert_array_equal(found.topk_ids, record.topk_ids[:2])  # type: ignore[index]
    np.testing.assert_array_equal(found.tail_logmass, record.tail_logmass[:2])  # type: ignore[index]
    view = cache.view([key], dataset="d", k=4)
    assert view.tokens == 5
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.array([0])])
    np.testing.assert_array_equal(block[0].token_ids, record.token_ids[:5])
    assert block[0].topk_ids is not None and block[0].topk_ids.shape == (2, 4)
    assert block[0].finish == "length"


def test_a_prefix_is_topped_up_as_a_prefix(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]), k=0)
    cache.put([(record, request)], vocab=VOCAB)
    short = dataclasses.replace(request, max_new_tokens=2)
    prefix = ScoreRequest(tuple(record.token_ids[:5].tolist()), 3)
    assert cache.missing([short], k=4) == Missing(generate=(), score=((0, prefix),))
    cache.put([make_record(prefix.token_ids, prompt_len=3, k=4, finish="given")], vocab=VOCAB)
    assert cache.missing([short], k=4) == NOTHING
    (found,) = cache.get_many(keys_of(cache, [short], k=4))
    assert found is not None and found.k == 4


def test_an_answer_cut_by_its_limit_does_not_serve_a_larger_one(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=5), length=5, finish="length")
    cache.put([(record, request)], vocab=VOCAB)
    longer = dataclasses.replace(request, max_new_tokens=6)
    assert cache.missing([longer], k=8) == Missing(generate=(0,), score=())
    assert cache.lookup([longer]) == [None]
    second, _ = answer(longer, length=6, finish="stop", seed=1)
    cache.put([(second, longer)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert window.missing([request, longer], k=8) == NOTHING
        assert window.lookup([request, longer]) == [record.key, second.key], "an answer once given does not change"


def test_requests_with_one_answer_are_listed_once(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    request = make_request(PROMPTS[0], limit=4)
    longer, other_seed = dataclasses.replace(request, max_new_tokens=9), dataclasses.replace(request, sampling_seed=5)
    given = ScoreRequest(token_ids=(3, 4, 5), prompt_len=1)
    missing = cache.missing([request, given, longer, other_seed, given], k=8)
    assert missing == Missing(generate=(2,), score=((1, given),))


def test_two_samples_with_the_same_words_share_a_row(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    requests = [make_request(PROMPTS[0], temperature=1.0, seed=seed) for seed in (1, 2)]
    record = make_record([*PROMPTS[0], 7, STOP], prompt_len=3)
    report = cache.put([(record, request) for request in requests], vocab=VOCAB)
    assert report is not None and report.rows == 1
    assert cache.lookup(requests, k=8) == [record.key] * 2


def test_two_teachers_never_share_a_row(tmp_path: Path) -> None:
    cache, other = open_cache(tmp_path), open_cache(tmp_path, identity=OTHER_TEACHER)
    record, request = answer(make_request(PROMPTS[0]))
    cache.put([(record, request)], vocab=VOCAB)
    other.refresh()
    assert other.missing([request, sequence_of(record)], k=1).generate == (0,)
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


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.writer(vocab=VOCAB) as writer:
        writer.add(make_record([3, 4, 5, 6], prompt_len=2))
        raise KeyboardInterrupt
    for folder in ("staging", "segments", "manifests"):
        assert list((teacher_dir(tmp_path) / folder).iterdir()) == []


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


def test_while_it_writes_the_owner_is_named(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    with cache.writer(vocab=VOCAB) as writer:
        writer.add(make_record([3, 4, 5, 6], prompt_len=2))
        (owner,) = (teacher_dir(tmp_path) / "staging").glob("*/owner.json")
        named = Owner.from_json(owner.read_bytes())
        assert named is not None
        assert named.pid == os.getpid()
        assert not named.gone(silent_s=600.0)
    assert list((teacher_dir(tmp_path) / "staging").iterdir()) == []


def test_the_fuller_of_two_pending_rows_is_kept(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    text, request = answer(make_request(PROMPTS[0]), k=0)
    scored = make_record(text.token_ids.tolist(), prompt_len=3, k=4, finish="given")
    orders: list[list[Any]] = [[(text, request), scored], [scored, (text, request)]]
    for order in orders:
        cache.put(order, vocab=VOCAB)
        (found,) = cache.get_many([text.key])
        assert found is not None
        assert (found.k, found.finish) == (4, "stop")


def test_a_full_disk_keeps_the_records_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with cache.writer(vocab=VOCAB) as writer:
        writer.add(record)
        with monkeypatch.context() as patch:
            patch.setattr("cache.disk.storage.write_tree", full)
            with pytest.raises(CacheError, match=r"No space left.*free space"):
                writer.commit()
        assert writer.pending_rows == 1
    assert open_cache(tmp_path).get_many([record.key])[0] is not None


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
    monkeypatch.setattr("cache.disk.storage.os.access", lambda *_: False)
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


def test_generation_keys_may_be_given_directly(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    with cache.writer(vocab=VOCAB) as writer:
        writer.add(record, generation_key=generation_key(TEACHER.digest(), request))
    assert cache.lookup([request]) == [record.key]


def test_a_short_answer_that_was_also_scored_as_a_text_is_still_an_answer(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request([3, 4, 5]), k=2)
    cache.put([(record, request)], vocab=VOCAB)
    cache.put([make_record(record.token_ids[:5].tolist(), prompt_len=3, k=4, finish="given")], vocab=VOCAB)
    (key,) = cache.lookup([dataclasses.replace(request, max_new_tokens=2)])
    assert key is not None
    (found,) = cache.get_many([key])
    assert found is not None
    assert (found.finish, found.k, found.response_len) == ("length", 4, 2)
