"""Made-up teacher output of about the shape of the real: peaked rows, ids that follow a Zipf law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import TeacherIdentity, TeacherRecord, sequence_key, tail_logmass

TEACHER = TeacherIdentity(weights_sha256="0" * 64, config_sha256="1" * 64)
PROMPT = 40


@dataclass(frozen=True, slots=True)
class Rows:
    """N rows of K entries over a vocabulary of V: ids [N, K], log-probabilities [N, K]."""

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    vocab: int

    def record(self, at: slice, *, rng: np.random.Generator) -> TeacherRecord:
        """A record of these rows with random tokens."""
        count = at.stop - at.start
        tokens = rng.integers(3, self.vocab, size=PROMPT + count).astype(np.int32)
        logprobs = self.logprobs[at]
        return TeacherRecord(
            key=sequence_key(TEACHER.digest(), tokens, PROMPT),
            token_ids=tokens,
            prompt_len=PROMPT,
            finish="length",
            origin="decode",
            topk_ids=self.ids[at],
            topk_logprobs=logprobs,
            target_logprobs=logprobs[:, 0].copy(),
            target_ranks=np.ones(count, dtype=np.int32),
            tail_logmass=tail_logmass(logprobs, vocab=self.vocab),
        )

    def records(self, length: int, *, seed: int = 0) -> list[TeacherRecord]:
        """All rows as records of `length` response tokens."""
        rng = np.random.default_rng(seed)
        return [self.record(slice(at, at + length), rng=rng) for at in range(0, len(self.ids), length)]


def zipf_rows(*, rows: int, k: int, vocab: int, seed: int = 0) -> Rows:
    """Rows whose probabilities fall with the rank to the power of 1.1 to 3, noisily."""
    parts = list(_parts(rows, k=k, vocab=vocab, rng=np.random.default_rng(seed)))
    return Rows(np.concatenate([ids for ids, _ in parts]), np.concatenate([part for _, part in parts]), vocab)


def _parts(
    rows: int, *, k: int, vocab: int, rng: np.random.Generator, at_once: int = 8192
) -> Iterator[tuple[Any, Any]]:
    for start in range(0, rows, at_once):
        count = min(at_once, rows - start)
        exponent = rng.uniform(1.1, 3.0, size=(count, 1))
        scores = -exponent * np.log(np.arange(1, k + 1)) + rng.normal(scale=0.4, size=(count, k))
        # What a power law leaves beyond rank k, as an integral.
        rest = k ** (1 - exponent) / (exponent - 1)
        logprobs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True) + rest)
        yield _distinct(count, k=k, vocab=vocab, rng=rng), -np.sort(-logprobs, axis=1).astype(np.float32)


def _distinct(count: int, *, k: int, vocab: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Ids [count, k] without repeats in a row, small ones more often than large ones."""
    drawn = np.sort((vocab ** rng.uniform(size=(count, 5 * k))).astype(np.int32) - 1, axis=1)
    order = rng.uniform(size=drawn.shape)
    order[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = 2.0
    ids = np.take_along_axis(drawn, np.argsort(order, axis=1)[:, :k], axis=1)
    # A row with too few different ids (hardly ever) gets the first k in their place.
    short = (order < 2).sum(axis=1) < k
    ids[short] = np.arange(k)
    return ids
