"""How the values of signals (`cache.signals`) are packed into columns, and unpacked again.

Shapes: P rows of a segment, W values a row.

- `signal-f32`: as they are, bit for bit.
- `signal-f16`: the nearest float16.
- `signal-u8`: q = rint((value - minimum) / step) in 0..254, beside the minimum and the step of each row as float32;
  step = (maximum - minimum) / 254. (255 stays free, so that no value looks like a chunk that was never written.)

What a lossy form loses is measured when a segment is written (`MeasuredError`) and stands in its manifest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from configs.errors import RecordError

SignalEncoding = Literal["signal-f32", "signal-f16", "signal-u8"]
SIGNAL_ENCODINGS: tuple[SignalEncoding, ...] = get_args(SignalEncoding)

LARGEST_STEP = 254

ERROR_PREFIX = "error_"
"""Begins the names of the measured error among a manifest's provenance."""

HELD: Mapping[SignalEncoding, tuple[str, type[np.generic]]] = {
    "signal-f32": ("signal_f32", np.float32),
    "signal-f16": ("signal_f16", np.float16),
    "signal-u8": ("signal_u8", np.uint8),
}
"""The column over P x W of each encoding, and its type, in which a reader holds it too."""

SCALE = np.dtype([("signal_minimum", "<f4"), ("signal_step", "<f4")])
"""What is kept of a row beside its values in `signal-u8`: a column for each field."""

_ROWS_AT_ONCE = 2048
"""Few enough that float64 copies of them are small beside the values."""


@dataclass(frozen=True, slots=True)
class MeasuredError:
    """What encoding lost: the largest difference of any value, and the root mean square; NaN: not known."""

    largest: float = math.nan
    rms: float = math.nan

    @classmethod
    def of(cls, provenance: Mapping[str, str]) -> Self:
        """What a manifest says; a number that is not one counts as not known."""
        return cls(*(_number(provenance.get(ERROR_PREFIX + name)) for name in ("largest", "rms")))

    def provenance(self) -> dict[str, str]:
        """As texts for a manifest; nothing where it is not known."""
        if math.isnan(self.largest) or math.isnan(self.rms):
            return {}
        return {f"{ERROR_PREFIX}largest": f"{self.largest:.6g}", f"{ERROR_PREFIX}rms": f"{self.rms:.6g}"}


def errors_together(parts: Iterable[tuple[MeasuredError, float]]) -> MeasuredError:
    """The error of several (error, how many values) together; not known where one of them is not.

    Where only some values of a part move, its largest error is an upper bound for them, and its mean stands for theirs.
    """
    known = [(error, count) for error, count in parts if count]
    total = math.fsum(count for _, count in known)
    if not total:
        return MeasuredError()
    squares = math.fsum(count * error.rms**2 for error, count in known)
    largest = float(np.max([error.largest for error, _ in known]))  # NaN if one is
    return MeasuredError(largest, math.sqrt(squares / total))


def check_signal_encoding(encoding: str) -> SignalEncoding:
    """The encoding, if there is one of this name.

    Raises:
        RecordError: naming those that there are.
    """
    for known in SIGNAL_ENCODINGS:
        if encoding == known:
            return known
    raise RecordError(f"encoding={encoding} is unknown for signals: choose one of {', '.join(SIGNAL_ENCODINGS)}")


def encode_values(values: Float32[np.ndarray, "P W"], *, encoding: SignalEncoding) -> dict[str, NDArray[Any]]:
    """The columns of these values: that of `HELD`, and those of `SCALE` where the encoding has them."""
    name, kind = HELD[encoding]
    if encoding != "signal-u8":
        with np.errstate(over="ignore"):
            return {name: values.astype(kind)}
    steps = np.empty(values.shape, dtype=np.uint8)
    scale = {field: np.empty(len(values), dtype=np.float32) for field in SCALE.names or ()}
    for at in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(at, at + _ROWS_AT_ONCE)
        some = values[rows].astype(np.float64)
        minimum = some.min(axis=1, keepdims=True)
        step = ((some.max(axis=1, keepdims=True) - minimum) / LARGEST_STEP).astype(np.float32)
        # A row of equal values has no step, and so has one whose range is less than float32 can divide.
        some = (some - minimum) / np.where(step > 0, step, 1).astype(np.float64)
        steps[rows] = np.minimum(np.rint(some), LARGEST_STEP)
        scale["signal_minimum"][rows], scale["signal_step"][rows] = minimum[:, 0], step[:, 0]
    return {name: steps, **scale}


def decode_values(held: NDArray[Any], scale: NDArray[Any], *, encoding: SignalEncoding) -> Float32[np.ndarray, "P W"]:
    """Values of rows as they are held, in an array of their own; `scale` [SCALE] counts for `signal-u8` alone."""
    values: NDArray[np.float32] = held.astype(np.float32)
    if encoding == "signal-u8":
        with np.errstate(over="ignore", invalid="ignore"):
            values *= scale["signal_step"][:, None]
            values += scale["signal_minimum"][:, None]
    return values


def scale_of(columns: Mapping[str, NDArray[Any]], *, rows: int) -> NDArray[Any]:
    """The columns of `SCALE` as one table; zeros where there are none."""
    scale = np.zeros(rows, dtype=SCALE)
    for name in SCALE.names or ():
        if name in columns:
            scale[name] = columns[name]
    return scale


def check_encodable(values: Float32[np.ndarray, "P W"], *, encoding: SignalEncoding) -> None:
    """Refuse finite values of which the encoding would make others.

    Raises:
        RecordError: naming the largest of them.
    """
    if encoding == "signal-f32":
        return
    columns = encode_values(values, encoding=encoding)
    found = decode_values(columns[HELD[encoding][0]], scale_of(columns, rows=len(values)), encoding=encoding)
    if not np.isfinite(found).all():
        largest = float(np.abs(values).max())
        raise RecordError(f"a value of {largest:.3g} does not fit encoding={encoding}: use signal-f32")


def measure_error(
    values: Float32[np.ndarray, "P W"], columns: Mapping[str, NDArray[Any]], *, encoding: SignalEncoding
) -> MeasuredError:
    """What these columns lost of these values, worked out in float64; not known for what loses nothing."""
    if encoding == "signal-f32":
        return MeasuredError()
    held, scale = columns[HELD[encoding][0]], scale_of(columns, rows=len(values))
    largest, squares = 0.0, 0.0
    for at in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(at, at + _ROWS_AT_ONCE)
        lost = decode_values(held[rows], scale[rows], encoding=encoding).astype(np.float64) - values[rows]
        largest = max(largest, float(np.abs(lost).max(initial=0.0)))
        squares += float(np.square(lost).sum())
    return MeasuredError(largest, math.sqrt(squares / values.size) if values.size else 0.0)


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if value >= 0.0 and math.isfinite(value) else math.nan
