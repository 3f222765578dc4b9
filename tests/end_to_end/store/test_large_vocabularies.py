"""Vocabularies beyond 2^17: ids, K from 1 to V, the tail and the size on disk."""

from __future__ import annotations

from math import log2
from pathlib import Path

import numpy as np
import pytest
from store_builders import TEACHER, open_cache

from cache.keys import sequence_key
from cache.records import TeacherRecord, tail_logmass
from cache.store import TeacherCache
from configs.errors import RecordError

VOCABULARIES = [151_936, 262_144]


def softmax_record(vocab: int, *, k: int, rows: int, seed: int, scale: float = 1.6) -> tuple[TeacherRecord, np.ndarray]:
    """A record of the top k of random distributions over the whole vocabulary, and these [rows, vocab]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(rows, vocab)).astype(np.float32)
    logits -= logits.max(axis=1, keepdims=True)
    whole = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32)
    ids = np.argsort(-whole, axis=1, kind="stable")[:, :k].astype(np.int32)
    logprobs = np.take_along_axis(whole, ids, axis=1)
    tokens = np.concatenate([[vocab - 1, 5], rng.integers(0, vocab, size=rows)]).astype(np.int32)
    target = np.take_along_axis(whole, tokens[2:, None], axis=1)[:, 0]
    record = TeacherRecord(
        key=sequence_key(TEACHER.digest(), tokens, 2),
        token_ids=tokens,
        prompt_len=2,
        finish="length",
        origin="decode",
        topk_ids=ids,
        topk_logprobs=logprobs,
        target_logprobs=target,
        target_ranks=(whole > target[:, None]).sum(axis=1).astype(np.int32) + 1,
        tail_logmass=tail_logmass(logprobs, vocab=vocab),
    )
    return record, whole


def stored(root: Path, record: TeacherRecord, *, vocab: int, encoding: str) -> TeacherRecord:
    TeacherCache.open(root, TEACHER).put([record], vocab=vocab, encoding=encoding)
    (found,) = open_cache(root).get_many([record.key])
    assert found is not None
    return found


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("k", [1, 64, 1000])
def test_any_k_of_a_large_vocabulary_comes_back(tmp_path: Path, vocab: int, k: int) -> None:
    record, whole = softmax_record(vocab, k=k, rows=12, seed=k)
    for encoding in ("topk-u8", "topk-f16"):
        found = stored(tmp_path / encoding, record, vocab=vocab, encoding=encoding)
        assert found.topk_ids is not None and found.topk_logprobs is not None and found.tail_logmass is not None
        np.testing.assert_array_equal(found.topk_ids, record.topk_ids)
        assert found.topk_ids.max() > 2**17, "ids that 17 bits do not hold"
        np.testing.assert_array_equal(found.target_logprobs, record.target_logprobs)
        np.testing.assert_array_equal(found.tail_logmass, record.tail_logmass)
        head = np.exp(found.topk_logprobs.astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(head + np.exp(found.tail_logmass.astype(np.float64)), 1.0, atol=1e-6)
        outside = 1.0 - np.exp(np.take_along_axis(whole, found.topk_ids, axis=1).astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(np.exp(found.tail_logmass), outside, rtol=1e-4)
        true = np.take_along_axis(whole, found.topk_ids, axis=1).astype(np.float64)
        assert (np.exp(true) * (true - found.topk_logprobs)).sum(axis=1).mean() < 1e-4


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_a_whole_large_vocabulary_is_kept_bit_for_bit(tmp_path: Path, vocab: int) -> None:
    record, _ = softmax_record(vocab, k=vocab, rows=3, seed=1)
    found = stored(tmp_path, record, vocab=vocab, encoding="topk-u8")
    np.testing.assert_array_equal(found.topk_ids, record.topk_ids)
    np.testing.assert_array_equal(found.topk_logprobs, record.topk_logprobs)
    assert np.isneginf(np.asarray(found.tail_logmass)).all()


def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    record, _ = softmax_record(151_936, k=8, rows=40, seed=3)
    with pytest.raises(RecordError, match=r"outside the vocabulary of 131072"):
        open_cache(tmp_path).put([record], vocab=131_072)


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_ids_that_share_nothing_cost_their_bits_and_little_more(tmp_path: Path, vocab: int) -> None:
    # Ids drawn evenly, which is the worst case (real text repeats its ids); log-probabilities of random weights, with
    # a step of 1/16 nat every other entry.
    rng = np.random.default_rng(7)
    rows = 8192
    scores = -0.7 * np.log(np.arange(1, 1025)) + rng.normal(scale=0.3, size=(rows, 1024))
    logprobs = -np.sort(-(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))), axis=1)[:, :64]
    logprobs = logprobs.astype(np.float32)
    ids = (
        rng.integers(0, vocab, size=(rows, 1)) + rng.integers(1, vocab // 64, size=(rows, 64)).cumsum(axis=1)
    ) % vocab
    ids = rng.permuted(ids, axis=1).astype(np.int32)
    tokens = rng.integers(0, vocab, size=rows + 1).astype(np.int32)
    record = TeacherRecord(
        key=sequence_key(TEACHER.digest(), tokens, 1),
        token_ids=tokens,
        prompt_len=1,
        finish="length",
        origin="decode",
        topk_ids=ids,
        topk_logprobs=logprobs,
        target_logprobs=logprobs[:, 0].copy(),
        target_ranks=np.ones(rows, dtype=np.int32),
        tail_logmass=tail_logmass(logprobs, vocab=vocab),
    )
    cache = open_cache(tmp_path)
    cache.put([record], vocab=vocab)
    assert cache.stats().bytes_per_token <= 165 + 8 * (log2(vocab) - 17)
