"""How scored rows are packed into columns, and unpacked again.

Shapes: N scored rows of a segment, K top-k. Log-probabilities are in nats.

- `topk-u8` (default): q_r = min(rint(16 (lp_1 - lp_r)), 255) is stored as the differences q_r - q_(r-1), beside the
  exact top-1 log-probability. Steps of 1/16 nat cost about 1e-4 nats of KL and compress to about 16 bytes a row at
  K = 64.
- `topk-f16`: the log-probabilities as float16.
- `full`: K = V, float32, bit for bit.
- `sampled`: how often each id was drawn (`cache.sampling`), exact.

Decoding either of the lossy forms adds one constant to each row, so that the head and the stored tail again sum to
one: a quantised distribution stays a distribution.

Decoding has two halves. `held_rows` is what a reader does once, when it loads a chunk: running sums and the constant of
each row, which is where the time goes. `held_logprobs` is what remains for every read: one multiplication and one
addition an entry, over rows gathered in the small type they are held in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int32
from numpy.typing import NDArray

from cache.records import LARGEST_DRAWS
from configs.errors import RecordError

Encoding = Literal["topk-u8", "topk-f16", "full", "sampled"]
ENCODINGS: tuple[str, ...] = get_args(Encoding)

STEPS_PER_NAT = 16
LARGEST_STEP = 255
SMALLEST_F16 = float(np.finfo(np.float16).min)

Columns = Mapping[str, NDArray[Any]]

Held = NDArray[Any]
"""Values [N, K] in the small type of `HELD_TYPES`."""

HELD_TYPES: Mapping[Encoding, type[np.generic]] = {
    "topk-u8": np.uint8,
    "topk-f16": np.float16,
    "full": np.float32,
    "sampled": np.uint16,
}

_ROWS_AT_ONCE = 2048
"""Few enough that the processor's cache holds what is worked on."""

_COLUMNS_AT_ONCE = 16
"""Few enough that float32 adds them up with hardly a loss and the processor's cache holds them."""

_CACHE_LINE = 64
"""Bytes."""


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that does not exist.

    Raises:
        RecordError: naming those that do.
    """
    if encoding not in ENCODINGS:
        raise RecordError(f"encoding={encoding} is unknown: choose one of {', '.join(ENCODINGS)}")


def resolve_encoding(encoding: str, *, k: int, vocab: int) -> Encoding:
    """The encoding that rows of this k really get: log-probabilities with K = V are always kept in full.

    Raises:
        RecordError: for an unknown encoding, for k outside 1..vocab, and for `full` with k < vocab.
    """
    check_encoding(encoding)
    if not 1 <= k <= vocab:
        raise RecordError(f"k={k} must lie in 1..vocab={vocab}")
    if encoding == "full" and k < vocab:
        raise RecordError(f"encoding=full keeps whole rows but k={k} < vocab={vocab}: use topk-f16 or topk-u8")
    if k == vocab and encoding != "sampled":
        return "full"
    return encoding  # type: ignore[return-value]  # checked against ENCODINGS above


def row_columns(encoding: Encoding) -> tuple[str, ...]:
    """Names of the columns that hold the log-probabilities (or draws) of a row, the ids aside."""
    return {
        "topk-u8": ("topk_dq", "top1_logprob"),
        "topk-f16": ("topk_logprob_f16",),
        "full": ("topk_logprob",),
        "sampled": ("draw_count",),
    }[encoding]


def encode_rows(logprobs: Float32[np.ndarray, "N K"], *, encoding: Encoding) -> dict[str, NDArray[np.generic]]:
    """The columns of `row_columns` for log-probabilities in descending order."""
    assert encoding != "sampled", "draws are not log-probabilities: see encode_draws"
    if encoding == "full":
        return {"topk_logprob": logprobs}
    if encoding == "topk-f16":
        return {"topk_logprob_f16": np.maximum(logprobs, SMALLEST_F16).astype(np.float16)}
    deltas = np.empty(logprobs.shape, dtype=np.uint8)
    for at in range(0, len(logprobs), _ROWS_AT_ONCE):
        deltas[at : at + _ROWS_AT_ONCE] = _deltas(logprobs[at : at + _ROWS_AT_ONCE])
    return {"topk_dq": deltas, "top1_logprob": np.ascontiguousarray(logprobs[:, 0])}


def encode_draws(counts: Int32[np.ndarray, "N K"]) -> dict[str, NDArray[np.generic]]:
    """The columns of `row_columns` for draws, which validation keeps within 16 bits."""
    assert counts.max(initial=0) <= LARGEST_DRAWS
    return {"draw_count": counts.astype(np.uint16)}


def held_rows(
    columns: Columns, *, tail_logmass: Float32[np.ndarray, " N"], encoding: Encoding
) -> tuple[Held, Float32[np.ndarray, " N"]]:
    """Rows as a reader keeps them: the values [N, K] and the constant of each row for `held_logprobs`.

    The values of `topk-u8` are uint8 steps below the first entry, those of `sampled` uint16 counts.
    """
    if encoding == "full":
        values = columns["topk_logprob"]
    elif encoding == "topk-f16":
        values = columns["topk_logprob_f16"]
        return values, _constant(np.exp(values.astype(np.float32)).sum(axis=1, dtype=np.float64), tail_logmass)
    elif encoding == "topk-u8":
        return _steps(columns["topk_dq"], top1=columns["top1_logprob"], tail_logmass=tail_logmass)
    else:
        values = columns["draw_count"]
    return values, np.zeros(len(values), dtype=np.float32)


def held_logprobs(values: Held, scale: Float32[np.ndarray, " N"], *, encoding: Encoding) -> Float32[np.ndarray, "N K"]:
    """Log-probabilities of held rows, in an array of their own."""
    assert encoding != "sampled", "draws have no log-probabilities"
    logprobs: NDArray[np.float32] = values.astype(np.float32)
    if encoding == "topk-u8":
        logprobs *= np.float32(-1 / STEPS_PER_NAT)
    if encoding != "full":
        logprobs += scale[:, None]
    return logprobs


def grown_tail(
    tail_logmass: Float32[np.ndarray, " N"], dropped: Float32[np.ndarray, "N D"]
) -> Float32[np.ndarray, " N"]:
    """The log mass of a tail that takes in the entries that were cut off, given by their log-probabilities.

    It is added up, never a difference from one, whose rounding would be larger than the tail.
    """
    mass = np.exp(dropped.astype(np.float64)).sum(axis=1) + np.exp(tail_logmass.astype(np.float64))
    tail: Float32[np.ndarray, " N"] = np.minimum(np.log(mass), 0.0).astype(np.float32)
    return tail


def _deltas(logprobs: Float32[np.ndarray, "N K"]) -> NDArray[np.uint8]:
    """Differences of the steps below the first entry."""
    # A row may end in -inf (an id that the teacher rules out): its distance is infinite and meets the same ceiling.
    # float32 moves a distance by a few millionths of a step at most, which only a tie could tell.
    distance = logprobs[:, :1] - logprobs
    distance *= np.float32(STEPS_PER_NAT)
    np.rint(distance, out=distance)
    steps = np.fmin(distance, np.float32(LARGEST_STEP), out=distance).astype(np.uint8)
    deltas: NDArray[np.uint8] = steps.copy()
    deltas[:, 0] = 0
    deltas[:, 1:] -= steps[:, :-1]
    return deltas


def _steps(
    deltas: NDArray[np.uint8], *, top1: Float32[np.ndarray, " N"], tail_logmass: Float32[np.ndarray, " N"]
) -> tuple[Held, Float32[np.ndarray, " N"]]:
    """Steps below the first entry, and the log-probability that the first entry is given.

    Sums are made column by column, which is how the differences are stored.
    """
    rows, k = deltas.shape
    # Chunks have a power of two of rows. Columns so far apart share one set of a processor's cache, and a row needs an
    # entry of each of them: a free line behind each column makes putting rows together twice as fast.
    wide = np.empty((k, rows + _CACHE_LINE), dtype=np.uint8)
    columns = wide[:, :rows]
    columns[:] = deltas.T
    for at in range(1, k):
        # The differences sum to at most 255, so the running sum never leaves uint8.
        columns[at] += columns[at - 1]
    mass = np.zeros(rows, dtype=np.float64)
    for at in range(0, k, _COLUMNS_AT_ONCE):
        some = wide[at : at + _COLUMNS_AT_ONCE].astype(np.float32)
        some *= np.float32(-1 / STEPS_PER_NAT)
        # With what stands behind them there is never a single row, so that columns are added one by one, and a row
        # decodes to the same bits whatever other rows share its chunk.
        mass += np.add.reduce(np.exp(some, out=some), axis=0)[:rows]
    steps = np.ascontiguousarray(columns.T)
    # Each row is put on its scale by the constant alone; the stored top-1 is the anchor where no constant exists.
    return steps, np.where(tail_logmass < 0, _constant(mass, tail_logmass), top1)


def _constant(head: NDArray[np.float64], tail_logmass: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
    """What to add to log-probabilities of this mass so that they and the tail sum to one; 0 where nothing can."""
    wanted = -np.expm1(tail_logmass.astype(np.float64))
    sound = (head > 0) & (wanted > 0)
    constant = np.log(np.where(sound, wanted, 1.0) / np.where(sound, head, 1.0))
    rounded: Float32[np.ndarray, " N"] = constant.astype(np.float32)
    return rounded
