"""How top-k rows are packed into columns, and unpacked again.

Shapes: N scored rows of a segment, K top-k. Log-probabilities are in nats.

- `topk-u8` (default): q_r = min(rint(16 (lp_1 - lp_r)), 255) is stored as the differences q_r - q_(r-1), beside the
  exact top-1 log-probability. Steps of 1/16 nat cost about 1e-4 nats of KL and compress to about 16 bytes a row at
  K = 64.
- `topk-f16`: the log-probabilities as float16.
- `full`: K = V, float32, bit for bit.

Decoding either of the lossy forms adds one constant to each row, so that the head and the stored tail again sum to
one: a quantised distribution stays a distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from configs.errors import RecordError

Encoding = Literal["topk-u8", "topk-f16", "full"]
ENCODINGS: tuple[str, ...] = get_args(Encoding)

STEPS_PER_NAT = 16
LARGEST_STEP = 255
SMALLEST_F16 = float(np.finfo(np.float16).min)

Columns = Mapping[str, NDArray[Any]]


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that does not exist.

    Raises:
        RecordError: naming those that do.
    """
    if encoding not in ENCODINGS:
        raise RecordError(f"encoding={encoding} is unknown: choose one of {', '.join(ENCODINGS)}")


def resolve_encoding(encoding: str, *, k: int, vocab: int) -> Encoding:
    """The encoding that rows of this k really get: K = V is always kept in full.

    Raises:
        RecordError: for an unknown encoding, for k outside 1..vocab, and for `full` with k < vocab.
    """
    check_encoding(encoding)
    if not 1 <= k <= vocab:
        raise RecordError(f"k={k} must lie in 1..vocab={vocab}")
    if encoding == "full" and k < vocab:
        raise RecordError(f"encoding=full keeps whole rows but k={k} < vocab={vocab}: use topk-f16 or topk-u8")
    return "full" if k == vocab else encoding  # type: ignore[return-value]  # checked against ENCODINGS above


def row_columns(encoding: Encoding) -> tuple[str, ...]:
    """Names of the columns that hold the log-probabilities of a row, the ids aside."""
    return {
        "topk-u8": ("topk_dq", "top1_logprob"),
        "topk-f16": ("topk_logprob_f16",),
        "full": ("topk_logprob",),
    }[encoding]


def encode_rows(logprobs: Float32[np.ndarray, "N K"], *, encoding: Encoding) -> dict[str, NDArray[np.generic]]:
    """The columns of `row_columns` for rows in descending order."""
    if encoding == "full":
        return {"topk_logprob": logprobs}
    if encoding == "topk-f16":
        return {"topk_logprob_f16": np.maximum(logprobs, SMALLEST_F16).astype(np.float16)}
    # A row may end in -inf (an id that the teacher rules out): its distance is infinite and meets the same ceiling.
    distance = np.rint((logprobs[:, :1].astype(np.float64) - logprobs) * STEPS_PER_NAT)
    steps = np.minimum(distance, LARGEST_STEP).astype(np.uint8)
    deltas = np.diff(steps, axis=1, prepend=np.uint8(0))
    return {"topk_dq": deltas, "top1_logprob": np.ascontiguousarray(logprobs[:, 0])}


def decode_rows(
    columns: Columns, *, tail_logmass: Float32[np.ndarray, " N"], encoding: Encoding
) -> Float32[np.ndarray, "N K"]:
    """Log-probabilities from the columns of `row_columns`; for the lossy forms head + exp(tail) = 1 in every row."""
    if encoding == "full":
        return columns["topk_logprob"].astype(np.float32, copy=False)
    if encoding == "topk-f16":
        return _normalised(columns["topk_logprob_f16"].astype(np.float32), tail_logmass=tail_logmass)
    # The differences sum to at most 255, so the running sum never leaves uint8.
    steps = np.cumsum(columns["topk_dq"], axis=1, dtype=np.uint8)
    table = (-np.arange(LARGEST_STEP + 1, dtype=np.float32)) / np.float32(STEPS_PER_NAT)
    # Each row is put on its scale by the constant alone; the stored top-1 is the anchor where no constant exists.
    return _normalised(table[steps] + columns["top1_logprob"][:, None], tail_logmass=tail_logmass)


def cut_rows(
    topk_ids: Int32[np.ndarray, "N K"],
    logprobs: Float32[np.ndarray, "N K"],
    tail_logmass: Float32[np.ndarray, " N"],
    *,
    k: int,
) -> tuple[Int32[np.ndarray, "N k"], Float32[np.ndarray, "N k"], Float32[np.ndarray, " N"]]:
    """The best k of K columns; the mass of the others joins the tail (added up, never as a difference from one)."""
    if k == logprobs.shape[1]:
        return topk_ids, logprobs, tail_logmass
    dropped = np.exp(logprobs[:, k:].astype(np.float64)).sum(axis=1)
    tail = np.minimum(np.log(dropped + np.exp(tail_logmass.astype(np.float64))), 0.0)
    return topk_ids[:, :k], logprobs[:, :k], tail.astype(np.float32)


def _normalised(
    logprobs: Float32[np.ndarray, "N K"], *, tail_logmass: Float32[np.ndarray, " N"]
) -> Float32[np.ndarray, "N K"]:
    head = np.exp(logprobs).sum(axis=1, dtype=np.float64)
    wanted = -np.expm1(tail_logmass.astype(np.float64))
    sound = (head > 0) & (wanted > 0)
    constant = np.log(np.where(sound, wanted, 1.0) / np.where(sound, head, 1.0))
    logprobs += constant.astype(np.float32)[:, None]
    return logprobs
