"""Files of numpy arrays (`.npz`) that others may have put there: bounded, without pickles, and damage is one line.

Such a file is a zip archive: it may say that it expands without end, and what numpy raises for one whose bytes were
changed or cut comes from numpy, zipfile, zlib and json.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import DTypeLike, NDArray

from configs.regular_files import UnreadableFileError, open_regular

LARGEST = 2**33
"""Bytes that the arrays of one file take at most."""

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    BadZipFile,
    zlib.error,
)
"""What is raised for a file whose bytes were changed or cut, while it is opened or its arrays are read."""


@contextmanager
def stored_arrays(path: Path, *, at_most: int = LARGEST) -> Iterator[NpzFile]:
    """The arrays in a file, of at most `at_most` bytes. What the block makes of them may fail in all the ways above.

    Raises:
        UnreadableFileError: it is not a regular file, or its arrays are not sound.
        OSError: it is missing or cannot be opened.
    """
    with open_regular(path) as stream:
        try:
            require_bounded(stream, at_most=at_most)
            with np.load(stream, allow_pickle=False) as stored:
                yield stored
        except UNREADABLE as error:
            raise UnreadableFileError(f"{path}: its arrays are damaged ({error})") from error


def vector(stored: NpzFile, name: str, kind: type[np.generic]) -> NDArray[Any]:
    """A one-dimensional array of a file.

    Raises:
        KeyError: there is none of this name.
        TypeError: it has another number of dimensions or another dtype.
    """
    return require_vector(stored[name], name, kind)


def require_vector(found: NDArray[Any], name: str, kind: DTypeLike) -> NDArray[Any]:
    """The array of this name, if it is one-dimensional and of this dtype.

    Raises:
        TypeError: it is not.
    """
    if found.ndim != 1 or found.dtype != np.dtype(kind):
        raise TypeError(f"{name} is {found.dtype} of shape {found.shape}, not a row of {np.dtype(kind)}")
    return found


def require_bounded(stream: BinaryIO | BytesIO, *, at_most: int = LARGEST) -> None:
    """Refuse a file that says that it would expand beyond all measure; the stream is at its beginning again.

    Raises:
        ValueError: it does.
        BadZipFile: it is not a zip archive.
    """
    with ZipFile(stream) as packed:
        if sum(member.file_size for member in packed.infolist()) > at_most:
            raise ValueError(f"it expands to more than {at_most:,} bytes")
    stream.seek(0)
