"""One byte string for every value, so that digests mean the same in every process and on every machine.

Each value is written as a tag, its length and its bytes; nothing is separated by a character that could occur inside
a value. Floats are their IEEE-754 bytes (minus zero is written as zero), integers are signed and little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError

Scalar = str | bytes | int | float | None

MAX_TOKEN_ID = 2**31 - 1


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
    array = np.asarray(token_ids)
    if array.size == 0:
        return b""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise RecordError(f"token ids must be a flat row of integers, not {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() > MAX_TOKEN_ID:
        raise RecordError(f"token ids must lie in 0..{MAX_TOKEN_ID}, found {array.min()}..{array.max()}")
    return array.astype("<i4", copy=False).tobytes()


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
