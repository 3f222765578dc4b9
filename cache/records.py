"""What is asked of a teacher, and what is kept of its answer.

Shapes: T tokens of a row (prompt and response), S = T - prompt_len response tokens, K top-k. Row i of every
per-response array predicts response token i, that is `token_ids[prompt_len + i]`. Log-probabilities are in nats,
normalised over the full vocabulary at temperature 1.

`tail_logmass[i] = log(max(1 - sum exp(topk_logprobs[i]), 2**-24))`, summed in float64 before any rounding; -inf only
when K equals the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One completion to be written.

    `stop_ids` is the complete resolved set, sorted: the engine adds none of its own. `max_new_tokens` is a stored
    property and not part of the key.
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
    arrays = [getattr(record, field.name) for field in fields(record)[-5:]]
    if all(array is None for array in arrays):
        return None
    if any(array is None for array in arrays):
        return "some of the log-probability arrays are missing; give all five or none"
    return _broken_row(record)


def _broken_row(record: TeacherRecord) -> str | None:
    ids, logprobs, target = record.topk_ids, record.topk_logprobs, record.target_logprobs
    assert ids is not None and logprobs is not None and target is not None
    assert record.tail_logmass is not None and record.target_ranks is not None
    rows = {len(ids), len(logprobs), len(target), len(record.target_ranks), len(record.tail_logmass)}
    if rows != {record.response_len}:
        return f"{sorted(rows)} rows for {record.response_len} response tokens"
    if ids.shape != logprobs.shape or ids.shape[1] == 0:
        return f"top-k ids {ids.shape} and log-probabilities {logprobs.shape} differ in shape or are empty"
    if record.response_len == 0:
        return None
    if np.isnan(logprobs).any() or np.isnan(target).any() or np.isnan(record.tail_logmass).any():
        return "NaN log-probability"
    if logprobs.max() > MASS_TOLERANCE or target.max() > MASS_TOLERANCE or record.tail_logmass.max() > 0:
        return "positive log-probability"
    if (np.diff(logprobs, axis=1) > 0).any():
        return "top-k log-probabilities are not in descending order"
    if np.exp(logprobs.astype(np.float64)).sum(axis=1).max() > 1 + MASS_TOLERANCE:
        return "top-k probabilities sum to more than 1"
    if int(ids.min()) < 0:
        return "negative top-k id"
    if int(record.target_ranks.min()) < 1:
        return "target rank below 1"
    ordered = np.sort(ids, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "duplicate ids in one top-k row"
    return None


def _broken_vocabulary(record: TeacherRecord, *, vocab: int) -> str | None:
    ids, tail = record.topk_ids, record.tail_logmass
    if ids is None or tail is None:
        return None
    if record.k > vocab:
        return f"k={record.k} exceeds the vocabulary of {vocab}"
    if ids.size and int(ids.max()) >= vocab:
        return f"top-k id {int(ids.max())} outside the vocabulary of {vocab}"
    if record.k < vocab and np.isneginf(tail).any():
        return f"tail_logmass=-inf although k={record.k} is less than the vocabulary of {vocab}"
    if record.k == vocab and not np.isneginf(tail).all():
        return f"tail_logmass is finite although k equals the vocabulary of {vocab}"
    return None
