"""What a student of another tokenizer reads of a view: its own tokens of the same answers, and where both end theirs.

It is made once, by whoever knows both tokenizers, and read by every process of a worker group, which knows none. A row
of the teacher's is told by its place in `view`; what the teacher believed there is read from the cache as ever, so
nothing is asked twice and nothing is copied. `sizes` is the same view with the student's lengths: which rows make up a
step, and how they are laid out, follows from it, and its digest covers all that is here.

Shapes: R rows; T tokens of the student's in all; n response tokens of the teacher's and m of the student's in all;
V tokens of the teacher's tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64
from numpy.typing import NDArray

from cache.batches import Rows
from cache.canonical import canonical
from cache.records import TeacherRecord
from cache.view_files import ViewFile, load_view_file, save_view_file
from cache.views import CacheView
from configs.errors import DataError
from student_train.losses.aligned import Aligned, align
from student_train.losses.alignment import common_chunks

KIND = "retokenised"

_ARRAYS = {
    "token_ids": "<i4",
    "token_offsets": "<i8",
    "prompt_len": "<i4",
    "teacher_ends": "<i4",
    "student_ends": "<i4",
    "vocabulary": "<i4",
}


@dataclass(frozen=True, slots=True, eq=False)
class Retokenised:
    """The rows of `view` as a student of another tokenizer reads them.

    Row r has the tokens `token_ids[token_offsets[r] : token_offsets[r + 1]]`, of which `prompt_len[r]` are the prompt.
    `teacher_ends` and `student_ends` say where each response token ends in the text of its answer, in bytes, row behind
    row; an end of answer stands where one more byte would. `vocabulary` maps the teacher's ids to the student's, -1
    where there is no such token.
    """

    view: CacheView
    token_ids: Int32[np.ndarray, " T"]
    token_offsets: Int64[np.ndarray, " R1"]
    prompt_len: Int32[np.ndarray, " R"]
    teacher_ends: Int32[np.ndarray, " n"]
    student_ends: Int32[np.ndarray, " m"]
    vocabulary: Int32[np.ndarray, " V"]
    sizes: CacheView = field(init=False)
    _theirs: Int64[np.ndarray, " R1"] = field(init=False, repr=False)
    _ours: Int64[np.ndarray, " R1"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        broken = self._broken()
        if broken is not None:
            raise DataError(f"{self.view.dataset} cannot be read by another tokenizer: {broken}")
        digest = hashlib.sha256(canonical("stillroom/retokenised/1", self.view.digest))
        for name, array in self._arrays().items():
            digest.update(canonical(name, hashlib.sha256(array.tobytes()).digest()))
        sizes = replace(
            self.view,
            # The digest of a view is over its name too, and so over everything that is here.
            dataset=f"{self.view.dataset}, retokenised {digest.hexdigest()}",
            lengths=np.diff(self.token_offsets).astype(np.int32),
            prompt_len=self.prompt_len.copy(),
        )
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "_theirs", _answer_offsets(self.view))
        object.__setattr__(self, "_ours", _answer_offsets(sizes))

    def __len__(self) -> int:
        return len(self.prompt_len)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything here."""
        return self.sizes.digest

    def records(self, rows: Rows, told: Sequence[TeacherRecord]) -> list[TeacherRecord]:
        """The teacher's records of these rows with the student's tokens, as text alone."""
        return [
            TeacherRecord(record.key, self._tokens(row), int(self.prompt_len[row]), record.finish, record.origin)
            for row, record in zip(rows.tolist(), told, strict=True)
        ]

    def aligned(self, rows: Rows, told: Sequence[TeacherRecord]) -> list[Aligned]:
        """What the teacher believed along these rows, beside the student's response tokens.

        Raises:
            DataError: a record holds text alone, or draws.
        """
        return [self._aligned(row, record) for row, record in zip(rows.tolist(), told, strict=True)]

    def save(self, path: Path) -> None:
        """Write it; a reader sees all of it or nothing.

        Raises:
            CacheError: it cannot be written.
        """
        content = ViewFile((self.view,), self._arrays(), {})
        save_view_file(path, content, kind=KIND, digest=self.digest)

    @classmethod
    def load(cls, path: Path) -> Retokenised:
        """Read what was saved.

        Raises:
            CacheError: there is nothing, or it is not what was saved.
            DataError: its arrays cannot be those of rows.
        """
        return load_view_file(path, kind=KIND, make=lambda content: cls(content.views[0], **content.vectors(_ARRAYS)))

    def _tokens(self, row: int) -> Int32[np.ndarray, " t"]:
        return self.token_ids[self.token_offsets[row] : self.token_offsets[row + 1]]

    def _aligned(self, row: int, record: TeacherRecord) -> Aligned:
        student = self.student_ends[self._ours[row] : self._ours[row + 1]]
        chunks = common_chunks(self.teacher_ends[self._theirs[row] : self._theirs[row + 1]], student)
        return align(record, chunks, vocabulary=self.vocabulary, positions=len(student))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.ascontiguousarray(getattr(self, name), dtype=kind) for name, kind in _ARRAYS.items()}

    def _broken(self) -> str | None:
        """What no rows can be, `None` when there is nothing."""
        rows, offsets = len(self.view), self.token_offsets
        if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != len(self.token_ids):
            return f"token_offsets do not lead through {rows} rows to {len(self.token_ids)}"
        lengths = np.diff(offsets)
        if len(self.prompt_len) != rows or not ((self.prompt_len > 0) & (self.prompt_len < lengths)).all():
            return "a row has no prompt, or no answer"
        answers = int((lengths - self.prompt_len).sum()), self.view.response_tokens
        if (len(self.student_ends), len(self.teacher_ends)) != answers:
            return f"{len(self.student_ends)} and {len(self.teacher_ends)} ends for {answers} response tokens"
        return None


def _answer_offsets(view: CacheView) -> Int64[np.ndarray, " R1"]:
    """Where the response tokens of each row begin, laid behind each other."""
    answers = view.lengths.astype(np.int64) - view.prompt_len
    found: Int64[np.ndarray, " R1"] = np.append(0, np.cumsum(answers))
    return found
