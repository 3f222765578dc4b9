"""The columns of a segment: their layout and what they cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from store_builders import TEACHER, make_record, open_cache

from cache.disk.columns import rows_per_chunk
from cache.keys import sequence_key
from cache.records import TeacherRecord, tail_logmass


def zipf_rows(rng: np.random.Generator, *, rows: int, k: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-k ids and log-probabilities of peaked rows: zipf-like with an exponent from nearly flat to nearly sure."""
    exponents = rng.uniform(1.1, 3.5, size=(rows, 1))
    ranks = np.arange(1, vocab + 1)
    noise = rng.normal(scale=0.4, size=(rows, k))
    logits = -exponents * np.log(ranks[:k]) + noise
    rest = np.stack([np.exp(-e * np.log(ranks[k:])).sum() for e in exponents[:, 0]])
    logprobs = logits - np.log(np.exp(logits).sum(axis=1) + rest)[:, None]
    # Frequent tokens are likely everywhere: ids follow a zipf law themselves.
    ids = np.stack([_distinct(rng, k=k, vocab=vocab) for _ in range(rows)])
    return ids.astype(np.int32), -np.sort(-logprobs, axis=1).astype(np.float32)


def _distinct(rng: np.random.Generator, *, k: int, vocab: int) -> np.ndarray:
    return rng.permutation(np.unique((vocab ** rng.uniform(size=8 * k)).astype(np.int64)))[:k]


def test_huge_ids_and_the_smallest_k(tmp_path: Path) -> None:
    vocab = 2**31 - 1
    tokens = np.array([vocab - 1, 5, vocab - 2], dtype=np.int32)
    record = TeacherRecord(
        key=sequence_key(TEACHER.digest(), tokens, 1),
        token_ids=tokens,
        prompt_len=1,
        finish="length",
        origin="decode",
        topk_ids=np.array([[vocab - 1], [0]], dtype=np.int32),
        topk_logprobs=np.array([[-0.5], [-25.0]], dtype=np.float32),
        target_logprobs=np.array([-0.5, -21.0], dtype=np.float32),
        target_ranks=np.array([1, vocab], dtype=np.int32),
        tail_logmass=tail_logmass(np.array([[-0.5], [-25.0]]), vocab=vocab),
    )
    open_cache(tmp_path).put([record], vocab=vocab)
    (stored,) = open_cache(tmp_path).get_many([record.key])
    assert stored is not None
    np.testing.assert_array_equal(stored.token_ids, tokens)
    np.testing.assert_array_equal(stored.topk_ids, record.topk_ids)
    np.testing.assert_array_equal(stored.target_ranks, record.target_ranks)
    assert stored.topk_logprobs is not None
    np.testing.assert_allclose(stored.topk_logprobs[0], [-0.5], atol=1e-5)


def test_a_token_of_64_entries_takes_at_most_165_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    ids, logprobs = zipf_rows(rng, rows=12_000, k=64, vocab=49_152)
    records = []
    for at in range(0, len(ids), 60):
        tokens = rng.integers(0, 49_152, size=100).astype(np.int32)
        part = logprobs[at : at + 60]
        records.append(
            dataclasses.replace(
                make_record(tokens.tolist(), prompt_len=40, k=0, finish="length"),
                topk_ids=ids[at : at + 60],
                topk_logprobs=part,
                target_logprobs=part[:, 0],
                target_ranks=np.ones(60, dtype=np.int32),
                tail_logmass=tail_logmass(part, vocab=49_152),
            )
        )
    cache = open_cache(tmp_path)
    cache.put(records, vocab=49_152)
    assert 60 < cache.stats().bytes_per_token <= 165


def test_chunks_of_whole_vocabularies_are_bounded_in_bytes() -> None:
    assert rows_per_chunk(10**6, k=64) == 8192
    assert rows_per_chunk(100, k=64) == 100
    assert rows_per_chunk(0, k=0) == 0
    assert 4 * 151_936 * rows_per_chunk(10**6, k=151_936) <= 2**25
    assert rows_per_chunk(10**6, k=2**31 - 1) == 1
