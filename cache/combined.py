"""A view that spans the caches of several teachers: which of them told what about each of its rows, and how to read it.

A row has one teacher, or is the mixture of what several told about the same sequence (`cache.mixing`). Nothing is
copied: it is mixed when it is read, so other shares take no disk, and what a step reads stays a pure function of the
view. `rows` stands for it wherever only lengths, keys and a digest count, and its digest covers all that is here.

Shapes: R rows of the view; r rows of one teacher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from cache.canonical import canonical
from cache.identity import Identity, parse_identity
from cache.mixing import mixed
from cache.protocols import RecordReader
from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.view_files import ViewFile, load_view_file, save_view_file
from cache.views import CacheView
from configs.errors import CacheError

KIND = "combined"

SUFFIX = ".combined"
"""Of the files of such views: what ends otherwise is a view of one cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one teacher told: row i of `view` stands at `places[i]` of the combined view, with this share of belief."""

    identity: Identity
    share: float
    view: CacheView
    places: Int64[np.ndarray, " r"]


@dataclass(frozen=True, eq=False)
class CombinedView:
    """The rows of one dataset split that several teachers answered; shares of one row sum to 1."""

    dataset: str
    parts: tuple[Part, ...]
    rows: CacheView = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self._standing_for())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything here."""
        return self.rows.digest

    @cached_property
    def positions(self) -> tuple[Int64[np.ndarray, " R"], ...]:
        """For each part where it has each row; -1 where it has none."""
        found = []
        for part in self.parts:
            at = np.full(len(self.rows), -1, dtype=np.int64)
            at[part.places] = np.arange(len(part.places))
            found.append(at)
        return tuple(found)

    def save(self, path: Path) -> None:
        """Write it; a reader sees all of it or nothing.

        Raises:
            CacheError: it cannot be written.
        """
        places = {_places(at): part.places.astype("<i8", copy=False) for at, part in enumerate(self.parts)}
        told = [{"identity": asdict(part.identity), "share": part.share.hex()} for part in self.parts]
        said = {"dataset": self.dataset, "parts": json.dumps(told)}
        views = tuple(part.view for part in self.parts)
        save_view_file(path, ViewFile(views, places, said), kind=KIND, digest=self.digest)

    @classmethod
    def load(cls, path: Path) -> CombinedView:
        """Read what was saved.

        Raises:
            CacheError: there is nothing, or it is not what was saved.
        """
        return load_view_file(path, kind=KIND, make=cls._of)

    @classmethod
    def _of(cls, content: ViewFile) -> CombinedView:
        told: Any = json.loads(content.said["parts"])
        places = content.vectors({_places(at): "<i8" for at in range(len(told))})
        parts = (
            Part(parse_identity(said["identity"]), float.fromhex(said["share"]), view, of_part)
            for said, view, of_part in zip(told, content.views, places.values(), strict=True)
        )
        return cls(content.said["dataset"], tuple(parts))

    def _standing_for(self) -> CacheView:
        """A view of no cache with the rows of all parts.

        Raises:
            CacheError: the parts do not make up whole rows.
        """
        count = sum(len(part.view) for part in self.parts)
        size = 1 + max((int(part.places.max(initial=-1)) for part in self.parts), default=-1)
        if not size or count < size:
            raise CacheError(f"{self.dataset} cannot be combined: {count} rows of its teachers for {size} places")
        shares, columns = np.zeros(size), _Columns.of(size)
        for part in self.parts:
            if len(part.places) != len(part.view) or len(np.unique(part.places)) != len(part.places):
                raise CacheError(f"{self.dataset} cannot be combined: a row of {part.view.dataset} has no place")
            columns.take(part, told=shares[part.places] > 0.0)
            shares[part.places] += part.share
        if not np.allclose(shares, 1.0):
            raise CacheError(f"{self.dataset} cannot be combined: shares of a row sum to {shares.min():.3g}, not to 1")
        digest = hashlib.sha256(canonical("stillroom/combined/1"))
        for part in self.parts:
            places = hashlib.sha256(part.places.astype("<i8", copy=False).tobytes()).digest()
            digest.update(canonical(part.view.digest, float(part.share), places))
        nowhere = np.zeros(size, dtype=np.int32)
        return CacheView(
            identity=digest.hexdigest(),
            dataset=self.dataset,
            k=min(part.view.k for part in self.parts),
            segments=(),
            segment=nowhere,
            row=nowhere.astype(np.int64),
            **columns.arrays,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The columns of a view, which its parts fill."""

    arrays: dict[str, Any]

    @classmethod
    def of(cls, size: int) -> _Columns:
        return cls(
            {
                "keys": np.zeros((size, 32), dtype=np.uint8),
                "row_ids": np.zeros(size, dtype=np.uint64),
                "prompt_len": np.zeros(size, dtype=np.int32),
                "lengths": np.zeros(size, dtype=np.int32),
                "finish": np.zeros(size, dtype=np.uint8),
            }
        )

    def take(self, part: Part, *, told: NDArray[np.bool_]) -> None:
        """Fill the rows of a part; those that were `told` by another must have its lengths, and keep its key.

        Raises:
            CacheError: they have not.
        """
        for name in ("prompt_len", "lengths"):
            if not np.array_equal(self.arrays[name][part.places[told]], getattr(part.view, name)[told]):
                raise CacheError(f"{part.view.dataset} cannot be combined: teachers told of sequences that differ")
        for name, array in self.arrays.items():
            array[part.places[~told]] = getattr(part.view, name)[~told]


class CombinedCache:
    """Reads combined views below `root`, and with `otherwise` the views of one cache that stand beside them.

    `views` are the former by their digests, `caches` those of their teachers.
    """

    def __init__(
        self, root: Path | str, views: Iterable[CombinedView], *, otherwise: RecordReader | None = None
    ) -> None:
        self.views: Mapping[str, CombinedView] = {view.digest: view for view in views}
        self._otherwise = otherwise
        identities = {part.identity for view in self.views.values() for part in view.parts}
        self.caches = {each: TeacherCache.open(root, each, create=False) for each in identities}

    def iter_blocks(
        self, view: CacheView, indices: Iterable[NDArray[np.integer]], *, prefetch: int = 0
    ) -> Iterator[list[TeacherRecord]]:
        """See `TeacherCache.iter_blocks`: a row of several teachers is their mixture, any other one as it is stored.

        Raises:
            CacheError: a row was lost or damaged, or nobody knows the view.
            DataError: teachers told of sequences that differ.
        """
        combined = self.views.get(view.digest)
        if combined is not None:
            return self._combined(combined, indices, prefetch=prefetch)
        if self._otherwise is None:
            raise CacheError(f"{view.dataset} is none of the views that were combined: run the fill again")
        return self._otherwise.iter_blocks(view, indices, prefetch=prefetch)

    def _combined(
        self, view: CombinedView, indices: Iterable[NDArray[np.integer]], *, prefetch: int
    ) -> Iterator[list[TeacherRecord]]:
        asked, *each_asked = tee(indices, 1 + len(view.parts))
        told = [
            self.caches[part.identity].iter_blocks(part.view, _held(at, of_part), prefetch=prefetch)
            for part, at, of_part in zip(view.parts, view.positions, each_asked, strict=True)
        ]
        for rows, *blocks in zip(asked, *told, strict=True):
            parts: list[list[tuple[float, TeacherRecord]]] = [[] for _ in rows]
            for part, at, block in zip(view.parts, view.positions, blocks, strict=True):
                for place, record in zip(np.flatnonzero(at[rows] >= 0), block, strict=True):
                    parts[place].append((part.share, record))
            yield [_together(each) for each in parts]


def _held(at: Int64[np.ndarray, " R"], indices: Iterable[NDArray[np.integer]]) -> Iterator[Int64[np.ndarray, " _"]]:
    """Where a part has those of the rows that it has at all."""
    return (at[rows][at[rows] >= 0] for rows in indices)


def _together(parts: Sequence[tuple[float, TeacherRecord]]) -> TeacherRecord:
    if len(parts) == 1:
        return parts[0][1]
    return mixed([record for _, record in parts], shares=[share for share, _ in parts])


def _places(at: int) -> str:
    return f"places{at}"
