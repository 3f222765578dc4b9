"""Two tokenisations of one text: where both begin a token, and what the tokens of one are called in the other.

Everything is measured in bytes of UTF-8, because a token may hold a part of a character. A *common boundary* is a place
of the text at which a token of either side ends; what lies between two of them is a *chunk* of n tokens of the teacher
and m of the student, the smallest pieces that both can be asked about (Minixhofer et al. 2025, arXiv 2503.20083). A
token is known by the bytes it stands for, never by its printed form or its id.

Shapes: n tokens of the teacher and m of the student in one answer, C chunks, R rows of K kept tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

TokenBytes = bytes | None
"""What a token stands for in a text; None for one that stands for no text, such as a mark between turns."""

UNMAPPED = -1
"""In a vocabulary map: no token of the student is this one of the teacher's."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """C chunks, one behind the other: chunk c are the tokens `teacher[c]` to `teacher[c + 1]`, and so of the student.

    Tokens behind the last common boundary belong to no chunk.
    """

    teacher: Int64[np.ndarray, " C1"]
    student: Int64[np.ndarray, " C1"]

    def __len__(self) -> int:
        return len(self.teacher) - 1

    @property
    def single(self) -> Bool[np.ndarray, " C"]:
        """Which are one token on each side."""
        single: Bool[np.ndarray, " C"] = (np.diff(self.teacher) == 1) & (np.diff(self.student) == 1)
        return single


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well two tokenisations go together: bytes of text in all, in chunks, and in chunks of one token on each side.

    `lost` of the `texts` had a text that the other side does not give back byte for byte; their bytes are not counted.
    """

    total: int = 0
    chunked: int = 0
    single: int = 0
    texts: int = 0
    lost: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.total + other.total,
            self.chunked + other.chunked,
            self.single + other.single,
            self.texts + other.texts,
            self.lost + other.lost,
        )

    @property
    def single_share(self) -> float:
        """The share of the text that is compared token by token; 0 where there is no text."""
        return self.single / self.total if self.total else 0.0

    @property
    def chunked_share(self) -> float:
        """The share of the text that is compared at all; 0 where there is no text."""
        return self.chunked / self.total if self.total else 0.0


def token_ends(tokens: Sequence[TokenBytes], *, text: bytes) -> Int32[np.ndarray, " n"] | None:
    """Where each token ends in `text`; None where the tokens do not spell it.

    Tokenizers that write a blank before every word put one before the first word too: it belongs to no text.
    """
    if any(token is None for token in tokens):
        return None
    spelt = [token for token in tokens if token is not None]
    whole, ends = b"".join(spelt), np.cumsum([len(token) for token in spelt], dtype=np.int64).astype(np.int32)
    if whole == text:
        return ends
    return np.maximum(ends - 1, 0).astype(np.int32) if whole == b" " + text else None


def with_end(ends: Int32[np.ndarray, " n"], *, text_bytes: int) -> Int32[np.ndarray, " n1"]:
    """The ends of an answer that its writer ended: the mark of the end stands where one more byte would."""
    return np.append(ends, np.int32(text_bytes + 1)).astype(np.int32)


def common_chunks(teacher_ends: Int[np.ndarray, " n"], student_ends: Int[np.ndarray, " m"]) -> Chunks:
    """The chunks between the common boundaries of two tokenisations, whose tokens end there.

    Where several tokens end at one place, because some are empty, the first of both sides meet, then the second.
    """
    most = max(len(teacher_ends), len(student_ends)) + 1
    places, others = (ends.astype(np.int64) * most + _occurrence(ends) for ends in (teacher_ends, student_ends))
    _, ours, theirs = np.intersect1d(places, others, assume_unique=True, return_indices=True)
    first = np.zeros(1, dtype=np.int64)
    return Chunks(np.concatenate([first, ours + 1]), np.concatenate([first, theirs + 1]))


def coverage_of(chunks: Chunks, *, teacher_ends: Int[np.ndarray, " n"], text_bytes: int) -> Coverage:
    """What the chunks of one text of `text_bytes` cover."""
    ends = np.minimum(np.append(0, teacher_ends)[chunks.teacher], text_bytes)
    sizes = np.diff(ends)
    return Coverage(text_bytes, int(sizes.sum()), int(sizes[chunks.single].sum()), texts=1)


def vocabulary_map(
    teacher: Sequence[TokenBytes], student: Sequence[TokenBytes], *, ends: Sequence[int] = (), end: int | None = None
) -> Int32[np.ndarray, " V"]:
    """For every id of the teacher the student's id that stands for the same bytes; -1 where there is none.

    Of several such ids of the student it is the least. The `ends`, the teacher's ids that end an answer, all become
    `end`; no other token without text has a counterpart.
    """
    by_bytes: dict[bytes, int] = {}
    for number, token in enumerate(student):
        if token:
            by_bytes.setdefault(token, number)
    found = [by_bytes.get(token, UNMAPPED) if token else UNMAPPED for token in teacher]
    for number in ends:
        found[number] = UNMAPPED if end is None else end
    return np.array(found, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class MappedRows:
    """Rows of the teacher's beliefs under the student's ids; entries in `padding` only fill a row up.

    Padding has id -1 and log-probability -inf; None says that there is none.
    """

    ids: Int32[np.ndarray, "R K"]
    logprobs: Float32[np.ndarray, "R K"]
    tail_logmass: Float32[np.ndarray, " R"]
    padding: Bool[np.ndarray, "R K"] | None


def map_rows(
    vocabulary: Int32[np.ndarray, " V"],
    *,
    ids: Int32[np.ndarray, "R K"],
    logprobs: Float32[np.ndarray, "R K"],
    tail_logmass: Float32[np.ndarray, " R"],
) -> MappedRows:
    """The teacher's kept tokens under the student's ids; what has none goes into the tail, what falls together adds up.

    Rows of which every token has an id of its own come back as they are, bit for bit.
    """
    known = np.append(vocabulary, np.int32(UNMAPPED))
    # The rows of a teacher's matrix beyond its tokenizer are no tokens.
    mapped = known[np.minimum(ids, len(vocabulary))]
    mapped, beliefs = _merged(mapped, logprobs)
    lost = mapped == UNMAPPED
    if not lost.any():
        return MappedRows(mapped, beliefs, tail_logmass, None)
    gone = np.where(lost, beliefs, -np.inf).astype(np.float64)
    tail = np.logaddexp.reduce(np.concatenate([gone, tail_logmass[:, None].astype(np.float64)], axis=1), axis=1)
    # What stays comes first, so that a row is no wider than what is left of the widest.
    order = np.argsort(lost, axis=1, kind="stable")[:, : max(1, int((~lost).sum(axis=1).max(initial=0)))]
    lost, mapped = np.take_along_axis(lost, order, axis=1), np.take_along_axis(mapped, order, axis=1)
    beliefs = np.where(lost, -np.inf, np.take_along_axis(beliefs, order, axis=1)).astype(np.float32)
    return MappedRows(mapped, beliefs, tail.astype(np.float32), lost)


def _merged(
    mapped: Int32[np.ndarray, "R K"], logprobs: Float32[np.ndarray, "R K"]
) -> tuple[Int32[np.ndarray, "R K"], Float32[np.ndarray, "R K"]]:
    """Each id of the student once a row, with the sum of its probabilities; as it was where none stands twice."""
    order = np.argsort(mapped, axis=1, kind="stable")
    ids, beliefs = np.take_along_axis(mapped, order, axis=1), np.take_along_axis(logprobs, order, axis=1).copy()
    twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] != UNMAPPED)
    if not twice.any():
        return mapped, logprobs
    for column in np.flatnonzero(twice.any(axis=0))[::-1].tolist():
        rows = np.flatnonzero(twice[:, column])
        beliefs[rows, column] = np.logaddexp(beliefs[rows, column], beliefs[rows, column + 1])
        # Its probability is with the other now, and nothing of it may reach the tail.
        ids[rows, column + 1], beliefs[rows, column + 1] = UNMAPPED, -np.inf
    return ids, beliefs


def _occurrence(ends: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Of the tokens that end at the same place, how many come before each."""
    found: Int64[np.ndarray, " n"] = np.arange(len(ends)) - np.searchsorted(ends, ends, side="left")
    return found
