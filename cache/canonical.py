"""One byte string for every value, so that digests mean the same in every process and on every machine.

Each value is written as a tag, its length and its bytes; nothing is separated by a character that could occur inside
a value. Floats are their IEEE-754 bytes (minus zero is written as zero), integers are signed and little-endian.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError

Scalar = str | bytes | int | float | None

Ids = tuple[int, ...]

MAX_TOKEN_ID = 2**31 - 1

LARGEST_SHARED = 2**20
"""Of ids that are shared objects; no vocabulary is larger, so others are no tokens."""

_SHARED = [np.empty(0, dtype=object)]
"""Every token that was seen, at its own place, in one array; it grows to the size of the largest vocabulary."""


def canonical(*values: Scalar) -> bytes:
    """The concatenation of all values, each with its tag and length.

    Raises:
        RecordError: for a NaN, which equals nothing and so can be no part of a key.
    """
    return b"".join(_tagged(value) for value in values)


def token_bytes(token_ids: NDArray[np.integer] | Sequence[int]) -> bytes:
    """Token ids [T] as little-endian int32.

    Raises:
        RecordError: when an id is outside 0..2**31-1 or the ids are not a flat row of integers.
    """
    if isinstance(token_ids, tuple):
        packed = _packed(token_ids)
        if packed is not None:
            return packed
    ids = np.asarray(token_ids)
    if ids.size == 0:
        return b""
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise RecordError(f"token ids must be a flat row of integers, not {ids.dtype} of shape {ids.shape}")
    if ids.min() < 0 or ids.max() > MAX_TOKEN_ID:
        raise RecordError(f"token ids must lie in 0..{MAX_TOKEN_ID}, found {ids.min()}..{ids.max()}")
    return ids.astype("<i4", copy=False).tobytes()


def token_ids_of(packed: bytes) -> Ids:
    """The ids [T] that `token_bytes` made these bytes of."""
    return _objects_of(np.frombuffer(packed, dtype="<i4"))


def shared(token_ids: Sequence[int]) -> Ids:
    """The same ids, each the one object that stands for it everywhere: 8 bytes a token in place of 36."""
    return _objects_of(np.array(token_ids, dtype=np.int64))


def _objects_of(ids: NDArray[np.integer]) -> Ids:
    try:
        return tuple(_SHARED[0][ids].tolist())
    except IndexError:
        most = int(ids.max())
    if most > LARGEST_SHARED:
        return tuple(ids.tolist())
    before = _SHARED[0]
    _SHARED[0] = np.concatenate([before, np.arange(len(before), max(most + 1, 2 * len(before))).astype(object)])
    return _objects_of(ids)


def _packed(token_ids: tuple[int, ...]) -> bytes | None:
    """Sound ids of a request, of which there may be millions; `None` for what has to be looked at more closely."""
    try:
        packed = array("i", token_ids)
    except (TypeError, OverflowError):
        return None
    if not token_ids or min(token_ids) < 0 or packed.itemsize != 4 or sys.byteorder != "little":
        return None
    return packed.tobytes()


def _tagged(value: Scalar) -> bytes:
    if value is None:
        return _framed(b"n", b"")
    if isinstance(value, str):
        return _framed(b"s", value.encode())
    if isinstance(value, bytes):
        return _framed(b"b", value)
    if isinstance(value, float):
        if math.isnan(value):
            raise RecordError("a NaN cannot be part of a key")
        return _framed(b"f", struct.pack("<d", value + 0.0))
    return _framed(b"i", int(value).to_bytes(16, "little", signed=True))


def _framed(tag: bytes, payload: bytes) -> bytes:
    return tag + len(payload).to_bytes(8, "little") + payload
