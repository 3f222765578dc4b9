"""Draws from the teacher's distribution, kept in place of its most likely tokens.

A top-k row forgets the tail, and a student that learns from it alone is biased. N draws with replacement from the whole
distribution are not: `counts / N` is an unbiased estimate of every probability, so the gradient of the forward KL that
follows from it is unbiased too, in a few dozen bytes a row (Anshumann et al. 2025, "Sparse Logit Sampling", arXiv
2503.16870). Other divergences are not linear in the teacher's probabilities and gain nothing from this.

Shapes: S response tokens, V vocabulary, K the most distinct ids that a row of the record drew.

A record of draws has a name of its own, which no request asks for: it can never answer one for log-probabilities.
So no configuration leads to draws: a program makes them of whole rows, writes them with `encoding="sampled"`, and names
them in a view, from which a student learns like from any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int32, UInt64
from numpy.typing import NDArray

from cache.canonical import canonical
from cache.keys import SequenceKey, sequence_key
from cache.records import LARGEST_DRAWS, TeacherRecord
from configs.errors import RecordError

LARGEST_SEED = 2**63 - 1

_MANTISSA_BITS = 53


def sampled_key(source: bytes, *, draws: int, seed: int) -> SequenceKey:
    """The name of a record of `draws` draws a row from the record of the sequence key `source`."""
    return SequenceKey(hashlib.sha256(canonical("stillroom/sampled/1", bytes(source), int(draws), int(seed))).digest())


def sample_rows(record: TeacherRecord, *, draws: int, seed: int) -> TeacherRecord:
    """A record of `draws` draws from each row of a record with K = V; the same for the same key, draws and seed.

    Raises:
        RecordError: when the record does not hold whole distributions or has no response token, when `draws` is
            outside 1..65534 or `seed` outside 0..2**63-1.
    """
    ids, logprobs, tail = record.topk_ids, record.topk_logprobs, record.tail_logmass
    if ids is None or logprobs is None or tail is None:
        raise _refused(record, "it has no log-probabilities to draw from")
    if not np.isneginf(tail).all():
        raise _refused(record, f"its k={record.k} is less than the vocabulary, and draws from a part of it are biased")
    if record.response_len == 0:
        raise _refused(record, "it has no response token")
    if not 1 <= draws <= LARGEST_DRAWS:
        raise _refused(record, f"draws={draws} outside 1..{LARGEST_DRAWS}")
    if not 0 <= seed <= LARGEST_SEED:
        raise _refused(record, f"seed={seed} outside 0..2**63-1")
    key = sampled_key(record.key, draws=draws, seed=seed)
    # The raw stream of a bit generator is fixed for good, unlike what `Generator` makes of it.
    raw = np.random.PCG64(int.from_bytes(key, "little")).random_raw(len(ids) * draws)
    rows = list(_drawn(ids, logprobs, np.atleast_1d(raw).reshape(len(ids), draws)))
    width = max(len(counts) for _, counts in rows)
    drawn, counted = np.full((len(rows), width), -1, dtype=np.int32), np.zeros((len(rows), width), dtype=np.int32)
    for row, (found, counts) in enumerate(rows):
        drawn[row, : len(found)], counted[row, : len(found)] = found, counts
    return replace(
        record,
        key=key,
        topk_ids=drawn,
        topk_logprobs=None,
        tail_logmass=None,
        counts=counted,
        sampled_from=bytes(record.key),
        sampling_seed=int(seed),
    )


def check_key(record: TeacherRecord, *, identity_digest: str) -> None:
    """Refuse a record that is not named by its own tokens and teacher, and by its draws if it holds any.

    Raises:
        RecordError: naming the key.
    """
    own = sequence_key(identity_digest, record.token_ids, record.prompt_len)
    if record.counts is None:
        if record.key != own:
            raise _refused(record, "its key is not that of its tokens and teacher")
        return
    if record.sampled_from != own:
        raise _refused(record, "it was drawn from another sequence or teacher than it shows")
    if record.sampling_seed is None or record.key != sampled_key(own, draws=record.draws, seed=record.sampling_seed):
        raise _refused(record, "its key is not that of its sequence, draws and seed")


def check_kind(record: TeacherRecord, *, encoding: str) -> None:
    """Refuse a record of draws in a segment of log-probabilities, and the reverse: a segment has one encoding.

    Raises:
        RecordError: naming the key and the cure.
    """
    if (record.counts is not None) != (encoding == "sampled"):
        kind = "log-probabilities or text" if record.counts is None else "draws"
        raise _refused(record, f"it holds {kind}, but the writer has encoding={encoding}: use a writer of its own")


def _drawn(
    ids: Int32[np.ndarray, "S V"], logprobs: Float32[np.ndarray, "S V"], raw: UInt64[np.ndarray, "S draws"]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Of each row the ids drawn and how often, the most frequent first, the smaller id among equals."""
    uniform = (raw >> np.uint64(64 - _MANTISSA_BITS)).astype(np.float64) * 2.0**-_MANTISSA_BITS
    for row, point in enumerate(uniform):
        cumulative = np.cumsum(np.exp(logprobs[row].astype(np.float64)))
        # A point is below one and the last bound is exactly one, so every point falls on an id of positive mass.
        at = np.searchsorted(cumulative / cumulative[-1], point, side="right")
        found, counts = np.unique(ids[row, at], return_counts=True)
        order = np.lexsort((found, -counts))
        yield found[order], counts[order]


def _refused(record: TeacherRecord, reason: str) -> RecordError:
    return RecordError(f"record {record.key.hex()[:12]} refused: {reason}")
