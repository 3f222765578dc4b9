"""Shuffled reads of a cache view, against a raw int32 + float16 memory map gathered and upcast the same way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import best_seconds
from cache import TeacherCache, TeacherIdentity, TeacherRecord, sequence_key, tail_logmass

SEQUENCES, PROMPT, RESPONSE, K, VOCAB = 512, 40, 64, 64, 49_152
BLOCK = 64
"""Sequences of one read."""


def bench_cache_reads() -> Iterator[str]:
    """Tokens a second of both, and their ratio."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        identity = TeacherIdentity(weights_sha256="0" * 64, config_sha256="1" * 64)
        cache = TeacherCache.open(root / "cache", identity)
        records = [_record(rng, identity) for _ in range(SEQUENCES)]
        report = cache.put(records, vocab=VOCAB)
        assert report is not None
        view = cache.view([record.key for record in records], dataset="bench", k=K)
        ids, logprobs = _memory_maps(root, records)
        order = np.split(rng.permutation(SEQUENCES), SEQUENCES // BLOCK)

        def read_cache() -> None:
            for _ in cache.iter_blocks(view, order):
                pass

        def read_maps() -> None:
            for rows in order:
                np.asarray(ids[rows])
                logprobs[rows].astype(np.float32)

        seconds = best_seconds({"cache": read_cache, "memmap": read_maps})
    tokens = SEQUENCES * RESPONSE
    yield f"cache: {report.bytes / report.response_tokens:.1f} bytes a response token at K={K}, V={VOCAB:,}"
    yield f"shuffled reads: cache {tokens / seconds['cache'] / 1e6:.2f} M tokens/s, raw memory map " + (
        f"{tokens / seconds['memmap'] / 1e6:.2f} M tokens/s, ratio {seconds['memmap'] / seconds['cache']:.2f}"
    )


def _record(rng: np.random.Generator, identity: TeacherIdentity) -> TeacherRecord:
    tokens = rng.integers(3, VOCAB, size=PROMPT + RESPONSE).astype(np.int32)
    # Ranks of a Zipf law with noise: about as peaked as a small chat model.
    scores = -1.6 * np.log(np.arange(1, 1025)) + rng.normal(scale=0.5, size=(RESPONSE, 1024))
    logprobs = -np.sort(-(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))), axis=1)[:, :K].astype(np.float32)
    ids = np.stack([rng.choice(VOCAB, size=K, replace=False) for _ in range(RESPONSE)]).astype(np.int32)
    return TeacherRecord(
        key=sequence_key(identity.digest(), tokens, PROMPT),
        token_ids=tokens,
        prompt_len=PROMPT,
        finish="length",
        origin="decode",
        topk_ids=ids,
        topk_logprobs=logprobs,
        target_logprobs=logprobs[:, 0].copy(),
        target_ranks=np.ones(RESPONSE, dtype=np.int32),
        tail_logmass=tail_logmass(logprobs, vocab=VOCAB),
    )


def _memory_maps(root: Path, records: list[TeacherRecord]) -> tuple[np.memmap, np.memmap]:
    ids = np.memmap(root / "ids", dtype=np.int32, mode="w+", shape=(SEQUENCES, RESPONSE, K))
    logprobs = np.memmap(root / "logprobs", dtype=np.float16, mode="w+", shape=(SEQUENCES, RESPONSE, K))
    for row, record in enumerate(records):
        assert record.topk_ids is not None and record.topk_logprobs is not None
        ids[row], logprobs[row] = record.topk_ids, record.topk_logprobs
    return ids, logprobs
