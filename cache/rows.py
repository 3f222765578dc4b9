"""Sequences of very many items that are not all in memory: made when they are asked for, or kept in a file.

Ten million requests are ten gigabytes as objects, and a plan, or a fill, looks at them one block after the other.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError

AT_ONCE = 1024
"""Items that are made together where all are wanted."""

HELD_BYTES = 4 * 2**20
"""Of rows that have not been written to their file; fewer never make one."""

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)

Positions = NDArray[np.int64]


class MadeRows(ABC, Sequence[Item_co]):
    """A sequence whose items are made anew whenever they are asked for. It is equal to any other with equal items."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def made(self, start: int, stop: int) -> list[Item_co]:
        """The items from `start` to before `stop`, both of which lie within the sequence."""

    @overload
    def __getitem__(self, at: SupportsIndex) -> Item_co: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Item_co]: ...

    def __getitem__(self, at: SupportsIndex | slice) -> Item_co | Sequence[Item_co]:
        wanted = range(len(self))[at]
        if isinstance(wanted, int):
            (item,) = self.made(wanted, wanted + 1)
            return item
        if wanted.step != 1:
            return tuple(self[each] for each in wanted)
        return tuple(self.made(wanted.start, max(wanted.start, wanted.stop)))

    def __iter__(self) -> Iterator[Item_co]:
        for start in range(0, len(self), AT_ONCE):
            yield from self.made(start, min(start + AT_ONCE, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever gets it in another process gets the items.
        return tuple, (list(self),)


class TakenRows(MadeRows[Item]):
    """The items of another sequence at some positions."""

    __slots__ = ("_at", "_rows")

    def __init__(self, rows: Sequence[Item], at: Positions) -> None:
        self._rows, self._at = rows, at

    def __len__(self) -> int:
        return len(self._at)

    def made(self, start: int, stop: int) -> list[Item]:
        """See `MadeRows`."""
        return list(taken(self._rows, self._at[start:stop]))


class JoinedRows(MadeRows[Item]):
    """The items of several sequences, one behind the other."""

    __slots__ = ("_ends", "_parts")

    def __init__(self, parts: Sequence[Sequence[Item]]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts), initial=0))

    def __len__(self) -> int:
        return self._ends[-1]

    def made(self, start: int, stop: int) -> list[Item]:
        """See `MadeRows`."""
        made: list[Item] = []
        for part, first in zip(self._parts, self._ends, strict=False):
            made += part[max(start - first, 0) : max(stop - first, 0)]
        return made


class SecondOf(MadeRows[Item]):
    """The second of each pair."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Sequence[tuple[Any, Item]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def made(self, start: int, stop: int) -> list[Item]:
        """See `MadeRows`."""
        return [item for _, item in self._pairs[start:stop]]


class Places(MadeRows[int]):
    """Numbers, which are not an object each."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: Positions) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def made(self, start: int, stop: int) -> list[int]:
        """See `MadeRows`."""
        made: list[int] = self.numbers[start:stop].tolist()
        return made


class SpilledRows(MadeRows[bytes]):
    """Rows of bytes in a file without a name, which is gone with the process that made it. 8 bytes of memory a row.

    The file lies where temporary files do (`TMPDIR`); as long as the rows are few there is none.
    """

    __slots__ = ("__weakref__", "_ends", "_file", "_tail", "_written")

    def __init__(self) -> None:
        self._ends, self._tail, self._written = array("q", [0]), bytearray(), 0
        self._file: int | None = None

    def append(self, row: bytes) -> None:
        """Add a row behind the others.

        Raises:
            ConfigError: there is no room for it.
        """
        self._tail += row
        self._ends.append(self._ends[-1] + len(row))
        if len(self._tail) >= HELD_BYTES:
            self._spill()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def made(self, start: int, stop: int) -> list[bytes]:
        """See `MadeRows`."""
        ends = self._ends[start : stop + 1]
        block, first = self._read(ends[0], ends[-1]), ends[0]
        return [block[begin - first : end - first] for begin, end in itertools.pairwise(ends)]

    def _read(self, start: int, stop: int) -> bytes:
        parts = []
        while start < min(stop, self._written):
            assert self._file is not None
            parts.append(os.pread(self._file, min(stop, self._written) - start, start))
            start += len(parts[-1])
        if start < stop:
            parts.append(bytes(self._tail[start - self._written : stop - self._written]))
        return b"".join(parts)

    def _spill(self) -> None:
        try:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="stillroom-rows-") as opened:
                    self._file = os.dup(opened.fileno())
                weakref.finalize(self, os.close, self._file)
            while self._tail:
                count = os.pwrite(self._file, self._tail, self._written)
                self._written += count
                del self._tail[:count]
        except OSError as error:
            raise ConfigError(
                f"{tempfile.gettempdir()} has no room for the rows of the data ({error.strerror}): set TMPDIR to a "
                "directory of a disk with more"
            ) from error


def taken(rows: Sequence[Item], at: Positions) -> Iterator[Item]:
    """The items at some positions, neighbours together."""
    for block in np.split(at, range(AT_ONCE, len(at), AT_ONCE)):
        for run in np.split(block, np.flatnonzero(np.diff(block) != 1) + 1):
            if len(run):
                yield from rows[int(run[0]) : int(run[-1]) + 1]
