"""What is asked of a teacher, and what is kept of its answer.

Shapes: T tokens of a row (prompt and response), S = T - prompt_len response tokens, K top-k. Row i of every
per-response array predicts response token i, that is `token_ids[prompt_len + i]`. Log-probabilities are in nats,
normalised over the full vocabulary at temperature 1.

`tail_logmass[i] = log(max(1 - sum exp(topk_logprobs[i]), 2**-24))`, summed in float64 before any rounding; -inf only
when K equals the vocabulary.

A *sampled* record holds draws from the teacher's distribution in place of its most likely tokens (`cache.sampling`):
`topk_ids` are the ids drawn, `counts` says how often, and there are neither log-probabilities of them nor a tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32

from configs.errors import RecordError

Finish = Literal["stop", "length", "given"]
Origin = Literal["decode", "prefill"]

TAIL_FLOOR = 2.0**-24
"""Smallest tail mass that is kept: the resolution of float32 near one."""

MASS_TOLERANCE = 1e-3
"""Top-k probabilities may sum to this much above one (rounding of the engine) before a record is refused."""


MASS_ROUNDING = 1e-4
"""What float32 may lose when it adds up a row; sums that come this close to the limit are added up in float64."""

LARGEST_DRAWS = 2**16 - 2
"""Draws a row of a sampled record: every count fits 16 bits, and one value stays free to mean nothing."""

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One completion to be written.

    `stop_ids` is the complete resolved set, sorted: the engine adds none of its own. `max_new_tokens` is a stored
    property and not part of the key. `grammar` is what the text of the answer is held to, in the Lark of llguidance; ""
    holds it to nothing.
    """

    prompt_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    sampling_seed: int = 0
    replicate: int = 0
    grammar: str = ""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A given sequence whose response tokens (from `prompt_len` on) are to be scored."""

    token_ids: tuple[int, ...]
    prompt_len: int


@dataclass(frozen=True, slots=True, eq=False)
class TeacherRecord:
    """One sequence and, unless the teacher gives text alone, its log-probabilities.

    The five per-response arrays are all present or all `None`. `target_logprobs` belongs to the token that really
    came next, which may lie outside the top-k; `target_ranks` counts from 1 (the most likely token).

    In a sampled record `counts` takes the place of `topk_logprobs` and `tail_logmass`. `topk_ids` are then the
    distinct ids drawn in each row, the most frequent first (the smaller id among equals), filled up with id -1 and
    count 0; every row counts the same number of draws. `sampled_from` is the sequence key of the record that was drawn
    from, `sampling_seed` (0..2**63-1) the seed.
    """

    key: bytes
    token_ids: Int32[np.ndarray, " T"]
    prompt_len: int
    finish: Finish
    origin: Origin
    policy_version: int | None = None
    topk_ids: Int32[np.ndarray, "S K"] | None = None
    topk_logprobs: Float32[np.ndarray, "S K"] | None = None
    target_logprobs: Float32[np.ndarray, " S"] | None = None
    target_ranks: Int32[np.ndarray, " S"] | None = None
    tail_logmass: Float32[np.ndarray, " S"] | None = None
    counts: Int32[np.ndarray, "S K"] | None = None
    sampled_from: bytes | None = None
    sampling_seed: int | None = None

    @property
    def response_len(self) -> int:
        """S, the number of response tokens."""
        return len(self.token_ids) - self.prompt_len

    @property
    def response_ids(self) -> Int32[np.ndarray, " S"]:
        """The response tokens."""
        return self.token_ids[self.prompt_len :]

    @property
    def k(self) -> int:
        """K, or 0 for a text-only record."""
        return 0 if self.topk_ids is None else int(self.topk_ids.shape[1])

    @property
    def draws(self) -> int:
        """Draws a row of a sampled record, 0 for all others."""
        return 0 if self.counts is None or not len(self.counts) else int(self.counts[0].sum(dtype=np.int64))


def tail_logmass(topk_logprobs: Float[np.ndarray, "S K"], *, vocab: int) -> Float32[np.ndarray, " S"]:
    """Log of the probability outside the top-k, in nats, summed in float64 (float32 can be off tenfold)."""
    if topk_logprobs.shape[1] >= vocab:
        return np.full(topk_logprobs.shape[0], -np.inf, dtype=np.float32)
    mass = np.exp(topk_logprobs.astype(np.float64)).sum(axis=1)
    tail: Float32[np.ndarray, " S"] = np.log(np.maximum(1.0 - mass, TAIL_FLOOR)).astype(np.float32)
    return tail


def validate_record(record: TeacherRecord, *, vocab: int | None = None) -> None:
    """Refuse a record that breaks the rules of the module's docstring.

    With `vocab` given, also top-k ids outside it, k above it, and a tail that does not fit it (-inf means K = V).

    Raises:
        RecordError: naming the key and the rule.
    """
    reason = _broken_rule(record) or (None if vocab is None else _broken_vocabulary(record, vocab=vocab))
    if reason is not None:
        raise RecordError(f"record {record.key.hex()[:12]} refused: {reason}")


def _broken_rule(record: TeacherRecord) -> str | None:
    if not 0 < record.prompt_len <= len(record.token_ids):
        return f"prompt_len={record.prompt_len} outside 1..{len(record.token_ids)}"
    if len(record.token_ids) and int(record.token_ids.min()) < 0:
        return "negative token id"
    if record.counts is not None:
        return _broken_draws(record)
    if record.sampled_from is not None or record.sampling_seed is not None:
        return "sampled_from and sampling_seed belong to a sampled record, and this one has no counts"
    arrays = (
        record.topk_ids,
        record.topk_logprobs,
        record.target_logprobs,
        record.target_ranks,
        record.tail_logmass,
    )
    present = sum(array is not None for array in arrays)
    if present == 0:
        return None
    if present < len(arrays):
        return "some of the log-probability arrays are missing; give all five or none"
    return _broken_rows(record)


def _broken_rows(record: TeacherRecord) -> str | None:
    ids, logprobs, target = record.topk_ids, record.topk_logprobs, record.target_logprobs
    ranks, tail = record.target_ranks, record.tail_logmass
    assert ids is not None and logprobs is not None and target is not None and ranks is not None and tail is not None
    rows = {len(ids), len(logprobs), len(target), len(ranks), len(tail)}
    if rows != {record.response_len}:
        return f"{sorted(rows)} rows for {record.response_len} response tokens"
    if ids.shape != logprobs.shape or ids.shape[1] == 0:
        return f"top-k ids {ids.shape} and log-probabilities {logprobs.shape} differ in shape or are empty"
    if record.response_len == 0:
        return None
    # Every comparison is false for a NaN, so a sound record needs no look of its own at them.
    largest = logprobs[:, 0].max()
    descending = bool((logprobs[:, 1:] <= logprobs[:, :-1]).all())
    if not (descending and largest <= MASS_TOLERANCE and target.max() <= MASS_TOLERANCE and tail.max() <= 0):
        return _unsound(logprobs, target, tail)
    if not _fits_one(logprobs):
        return "top-k probabilities sum to more than 1"
    ordered = np.sort(ids, axis=1)
    if ordered[:, 0].min() < 0:
        return "negative top-k id"
    if ranks.min() < 1:
        return "target rank below 1"
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "duplicate ids in one top-k row"
    return None


def _unsound(
    logprobs: Float32[np.ndarray, "S K"], target: Float32[np.ndarray, " S"], tail: Float32[np.ndarray, " S"]
) -> str:
    """What is wrong with log-probabilities that are known to be wrong."""
    if np.isnan(logprobs).any() or np.isnan(target).any() or np.isnan(tail).any():
        return "NaN log-probability"
    if logprobs.max() > MASS_TOLERANCE or target.max() > MASS_TOLERANCE or tail.max() > 0:
        return "positive log-probability"
    return "top-k log-probabilities are not in descending order"


def _fits_one(logprobs: Float32[np.ndarray, "S K"]) -> bool:
    """Whether no row sums to more than 1 + MASS_TOLERANCE; the cheaper float32 decides where it is clear."""
    if np.exp(logprobs).sum(axis=1).max() <= 1 + MASS_TOLERANCE - MASS_ROUNDING:
        return True
    return bool(np.exp(logprobs.astype(np.float64)).sum(axis=1).max() <= 1 + MASS_TOLERANCE)


def _broken_draws(record: TeacherRecord) -> str | None:
    ids, counts, target, ranks = record.topk_ids, record.counts, record.target_logprobs, record.target_ranks
    if ids is None or counts is None or target is None or ranks is None:
        return "a sampled record has ids, counts, target log-probabilities and target ranks"
    if record.topk_logprobs is not None or record.tail_logmass is not None:
        return "a sampled record has counts and no top-k log-probabilities or tail"
    if record.sampled_from is None or len(record.sampled_from) != DIGEST_BYTES:
        return "a sampled record names the sequence that it was drawn from"
    if record.sampling_seed is None or not 0 <= record.sampling_seed < 2**63:
        return f"sampling_seed={record.sampling_seed} outside 0..2**63-1"
    rows = {len(ids), len(counts), len(target), len(ranks)}
    if rows != {record.response_len}:
        return f"{sorted(rows)} rows for {record.response_len} response tokens"
    if record.response_len == 0:
        return "nothing was drawn: there is no response token"
    if ids.shape != counts.shape or ids.shape[1] == 0:
        return f"drawn ids {ids.shape} and counts {counts.shape} differ in shape or are empty"
    if not (target.max() <= MASS_TOLERANCE and ranks.min() >= 1):
        return "NaN or positive target log-probability, or a target rank below 1"
    return _broken_counts(ids, counts)


def _broken_counts(ids: Int32[np.ndarray, "S K"], counts: Int32[np.ndarray, "S K"]) -> str | None:
    sums = counts.sum(axis=1, dtype=np.int64)
    if not 0 < sums[0] <= LARGEST_DRAWS or (sums != sums[0]).any():
        return f"rows of {sums.min()} to {sums.max()} draws: all rows have the same number, 1..{LARGEST_DRAWS}"
    if (counts < 0).any() or ((counts == 0) != (ids == -1)).any() or (ids < -1).any():
        return "every id drawn has a count above 0, and id -1 with count 0 fills a row up"
    less, same = counts[:, 1:] < counts[:, :-1], counts[:, 1:] == counts[:, :-1]
    if not (less | (same & ((ids[:, 1:] > ids[:, :-1]) | (counts[:, 1:] == 0)))).all():
        return "drawn ids are not in order: the most frequent first, the smaller id among equals"
    ordered = np.sort(ids, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        return "an id stands twice in one row of draws"
    return None


def _broken_vocabulary(record: TeacherRecord, *, vocab: int) -> str | None:
    ids, tail = record.topk_ids, record.tail_logmass
    if ids is None:
        return None
    if record.k > vocab:
        return f"k={record.k} exceeds the vocabulary of {vocab}"
    if ids.size and int(ids.max()) >= vocab:
        return f"top-k id {int(ids.max())} outside the vocabulary of {vocab}"
    if tail is None or not tail.size:
        return None
    if record.k < vocab and tail.min() == -np.inf:
        return f"tail_logmass=-inf although k={record.k} is less than the vocabulary of {vocab}"
    if record.k == vocab and tail.max() > -np.inf:
        return f"tail_logmass is finite although k equals the vocabulary of {vocab}"
    return None
