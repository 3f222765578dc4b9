"""Content addresses: the name of a sequence, the name of a generation, and the seed that follows from it.

A sequence key names (teacher, tokens, prompt length); a generation key names (teacher, prompt, how it was sampled).
How long an answer may be is not in the key: a shorter limit reads a prefix of the same answer. At temperature 0 all
that only shapes the sampling noise is left out, so every greedy request for a prompt is one request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from cache.canonical import canonical, token_bytes
from cache.records import GenerateRequest

SequenceKey = NewType("SequenceKey", bytes)
GenerationKey = NewType("GenerationKey", bytes)

KEY_BYTES = 32
"""Length of both kinds of key: SHA-256."""


def sequence_key(identity_digest: str, token_ids: NDArray[np.integer] | Sequence[int], prompt_len: int) -> SequenceKey:
    """The name of a sequence of `token_ids` [T] whose first `prompt_len` tokens are the prompt.

    Raises:
        RecordError: when a token id is outside 0..2**31-1.
    """
    parts = _sequence_of(identity_digest) + canonical(int(prompt_len), token_bytes(token_ids))
    return SequenceKey(hashlib.sha256(parts).digest())


def generation_key(identity_digest: str, request: GenerateRequest) -> GenerationKey:
    """The name of one completion: the teacher, the prompt and everything that changes what is sampled.

    Stop ids count as a set. `max_new_tokens` is left out; at temperature 0 so are the seed, the replicate and the
    cuts of the distribution (top-p, top-k, min-p), none of which moves its maximum. A grammar counts where there
    is one; all other names are as they were before there were any.

    Raises:
        RecordError: when a token id is outside 0..2**31-1 or a number is NaN.
    """
    how = _sampling(
        request.stop_ids,
        request.temperature,
        request.top_p,
        request.top_k,
        request.min_p,
        request.sampling_seed,
        request.replicate,
        request.presence_penalty,
        request.frequency_penalty,
        request.repetition_penalty,
    )
    parts = _generation_of(identity_digest) + canonical(token_bytes(request.prompt_ids)) + how
    if request.grammar:
        parts += canonical(request.grammar)
    return GenerationKey(hashlib.sha256(parts).digest())


@lru_cache(maxsize=64)
def _sequence_of(identity_digest: str) -> bytes:
    """How the name of every sequence of a teacher begins."""
    return canonical("stillroom/sequence/1", identity_digest)


@lru_cache(maxsize=64)
def _generation_of(identity_digest: str) -> bytes:
    """How the name of every generation of a teacher begins."""
    return canonical("stillroom/generation/1", identity_digest)


@lru_cache(maxsize=4096)
def _sampling(
    stop_ids: tuple[int, ...],
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    sampling_seed: int,
    replicate: int,
    presence_penalty: float,
    frequency_penalty: float,
    repetition_penalty: float,
) -> bytes:
    """What a name says of the sampling, which a million requests have in common but for their replicate."""
    noise: tuple[int | float, ...] = (1.0, 0, 0.0, 0, 0)
    if temperature != 0:
        noise = (float(top_p), max(int(top_k), 0), float(min_p), int(sampling_seed), int(replicate))
    return canonical(
        token_bytes(sorted(set(stop_ids))),
        float(temperature),
        *noise,
        float(presence_penalty),
        float(frequency_penalty),
        float(repetition_penalty),
    )


def engine_seed(key: bytes) -> int:
    """The engine's seed of one request: the first 63 bits of its generation key, so no two requests share noise."""
    return int.from_bytes(key[:8], "big") >> 1
