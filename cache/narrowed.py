"""A view of what a teacher said, as a student reads it that was shown less: the same answers behind its own prompts.

The teacher's rows are named by all that it saw; a student never sees that. Its sequence is its own prompt with the
answer of the teacher, and what the teacher believed at each token of the answer is what the student learns at the same
token. Nothing is copied but token ids; what is believed is read from the cache as ever. Answers are compared token by
token whenever a row is read. `rows` stands for the view wherever only lengths, keys and a digest count.

Shapes: R rows; T tokens of the student's in all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64
from numpy.typing import NDArray

from cache.canonical import canonical
from cache.protocols import RecordReader
from cache.records import TeacherRecord
from cache.view_files import ViewFile, load_view_file, save_view_file
from cache.views import CacheView
from configs.errors import CacheError

KIND = "narrowed"

SUFFIX = ".narrowed"
"""Of the files of such views."""

_ARRAYS = {"token_ids": "<i4", "token_offsets": "<i8", "prompt_len": "<i4"}


@dataclass(frozen=True, slots=True, eq=False)
class NarrowedView:
    """The rows of `view` as a student reads them.

    Row r has the tokens `token_ids[token_offsets[r] : token_offsets[r + 1]]`, of which `prompt_len[r]` are its prompt
    and the others the teacher's answer.
    """

    view: CacheView
    token_ids: Int32[np.ndarray, " T"]
    token_offsets: Int64[np.ndarray, " R1"]
    prompt_len: Int32[np.ndarray, " R"]
    rows: CacheView = field(init=False)

    def __post_init__(self) -> None:
        lengths = np.diff(self.token_offsets)
        answers = np.asarray(self.view.lengths) - np.asarray(self.view.prompt_len)
        if self.token_offsets[0] != 0 or self.token_offsets[-1] != len(self.token_ids) or (self.prompt_len < 1).any():
            raise CacheError(f"{self.view.dataset} cannot be narrowed: its offsets or prompts are not those of rows")
        if len(lengths) != len(answers) or not np.array_equal(lengths - self.prompt_len, answers):
            raise CacheError(f"{self.view.dataset} cannot be narrowed: answers are not as long as the teacher's")
        digest = hashlib.sha256(canonical("stillroom/narrowed/1", self.view.digest))
        for name, array in self._arrays().items():
            digest.update(canonical(name, hashlib.sha256(array.tobytes()).digest()))
        nowhere = np.zeros(len(self.view), dtype=np.int32)
        rows = replace(
            self.view,
            # Of no cache, so that nobody reads a teacher's row by a student's lengths.
            identity=digest.hexdigest(),
            segments=(),
            segment=nowhere,
            row=nowhere.astype(np.int64),
            lengths=lengths.astype(np.int32),
            prompt_len=self.prompt_len.copy(),
        )
        object.__setattr__(self, "rows", rows)

    @classmethod
    def of(
        cls, view: CacheView, *, cache: RecordReader, prompts: Mapping[tuple[int, ...], tuple[int, ...]]
    ) -> NarrowedView:
        """A view whose prompts a student has by what the teacher saw in their place.

        Raises:
            CacheError: a prompt is unknown, or a row was lost or damaged.
        """
        tokens: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        for record in _all(view, cache=cache):
            prompt = prompts.get(tuple(record.token_ids[: record.prompt_len].tolist()))
            if prompt is None:
                raise CacheError(f"{view.dataset} cannot be narrowed: what the teacher saw in one row is none of ours")
            tokens += [np.array(prompt, dtype=np.int32), record.response_ids]
            lengths.append(len(prompt))
        ends = np.cumsum([len(each) for each in tokens], dtype=np.int64)[1::2]
        flat = np.concatenate([np.empty(0, dtype=np.int32), *tokens])
        return cls(view, flat, np.append(np.int64(0), ends), np.array(lengths, dtype=np.int32))

    def record(self, row: int, told: TeacherRecord) -> TeacherRecord:
        """The teacher's record of a row behind the student's prompt.

        Raises:
            CacheError: its answer is not, token by token, the one that the student reads.
        """
        tokens, begins = self.token_ids[self.token_offsets[row] : self.token_offsets[row + 1]], self.prompt_len[row]
        if told.key != bytes(self.view.keys[row]) or not np.array_equal(tokens[begins:], told.response_ids):
            raise CacheError(
                f"{self.view.dataset}: the answer of row {row} is not the one that was narrowed: run the fill again"
            )
        return replace(told, token_ids=tokens, prompt_len=int(begins))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything here."""
        return self.rows.digest

    def save(self, path: Path) -> None:
        """Write it; a reader sees all of it or nothing.

        Raises:
            CacheError: it cannot be written.
        """
        content = ViewFile((self.view,), self._arrays(), {})
        save_view_file(path, content, kind=KIND, digest=self.digest)

    @classmethod
    def load(cls, path: Path) -> NarrowedView:
        """Read what was saved.

        Raises:
            CacheError: there is nothing, or it is not what was saved.
        """
        return load_view_file(path, kind=KIND, make=lambda content: cls(content.views[0], **content.vectors(_ARRAYS)))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.ascontiguousarray(getattr(self, name), dtype=kind) for name, kind in _ARRAYS.items()}


class NarrowedCache:
    """Reads narrowed views of a cache, and the other views of it."""

    def __init__(self, cache: RecordReader, views: Iterable[NarrowedView]) -> None:
        self._cache = cache
        self._views: Mapping[str, NarrowedView] = {view.rows.digest: view for view in views}

    def iter_blocks(
        self, view: CacheView, indices: Iterable[NDArray[np.integer]], *, prefetch: int = 0
    ) -> Iterator[list[TeacherRecord]]:
        """See `TeacherCache.iter_blocks`: what the teacher said, behind the student's prompts.

        Raises:
            CacheError: a row was lost or damaged, or an answer is another than was narrowed.
        """
        narrowed = self._views.get(view.digest)
        if narrowed is None:
            return self._cache.iter_blocks(view, indices, prefetch=prefetch)
        return self._narrowed(narrowed, indices, prefetch=prefetch)

    def _narrowed(
        self, view: NarrowedView, indices: Iterable[NDArray[np.integer]], *, prefetch: int
    ) -> Iterator[list[TeacherRecord]]:
        ours, theirs = tee(indices)
        blocks = self._cache.iter_blocks(view.view, theirs, prefetch=prefetch)
        for rows, block in zip(ours, blocks, strict=True):
            yield [view.record(row, told) for row, told in zip(rows.tolist(), block, strict=True)]


_ROWS_PER_READ = 1024


def _all(view: CacheView, *, cache: RecordReader) -> Iterator[TeacherRecord]:
    pieces = np.split(np.arange(len(view)), range(_ROWS_PER_READ, len(view), _ROWS_PER_READ))
    return (record for block in cache.iter_blocks(view, pieces) for record in block)
