"""What teachers that are mixed with the first are asked: to score the sequences that it wrote, or that were given.

What the first one has not written yet is planned as the longest answer that it may write. No sequence is held: those
that it wrote lie in a file (`cache.rows`), the others are made of the requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.canonical import token_bytes, token_ids_of
from cache.rows import MadeRows, Positions, SpilledRows, TakenRows, taken
from configs.schema import TeacherConfig
from orchestration.plan.requests import Holdings, SequenceSet

ROWS_PER_READ = 1024

UNKNOWN, GIVEN = -1, -2
"""In the place of a sequence's row in the file: nobody has written it, or the request is the sequence itself."""


class Sequences(MadeRows[ScoreRequest]):
    """The sequence that answers each request of a teacher, as others are asked about it. 16 bytes of memory each.

    Where the teacher has not written it yet, it is the longest that it may write.
    """

    __slots__ = ("_at", "_requests", "_written")

    def __init__(self, requests: Sequence[Request], *, cache: Holdings) -> None:
        """Read what answers them."""
        self._requests, self._written = requests, SpilledRows()
        self._at = np.full(len(requests), UNKNOWN, dtype=np.int64)
        for start in range(0, len(requests), ROWS_PER_READ):
            self._read(start, requests[start : start + ROWS_PER_READ], cache=cache)

    @property
    def known(self) -> Positions:
        """The positions of those that were given, or that the teacher has written."""
        return np.flatnonzero(self._at != UNKNOWN)

    def __len__(self) -> int:
        return len(self._at)

    def made(self, start: int, stop: int) -> list[ScoreRequest]:
        """See `MadeRows`."""
        at = self._at[start:stop]
        written = taken(self._written, at[at >= 0])
        requests = zip(self._requests[start:stop], at.tolist(), strict=True)
        return [_unpacked(next(written)) if place >= 0 else _longest(request) for request, place in requests]

    def _read(self, start: int, requests: Sequence[Request], *, cache: Holdings) -> None:
        """What answers the requests from position `start` on."""
        given = [isinstance(each, ScoreRequest) for each in requests]
        self._at[start : start + len(requests)][given] = GIVEN
        if not isinstance(cache, TeacherCache):  # nothing is held of it
            return
        asked = [(at, each) for at, each in enumerate(requests, start) if isinstance(each, GenerateRequest)]
        keys = cache.lookup([request for _, request in asked])
        records = iter(cache.get_many([key for key in keys if key is not None], k=0))
        for (at, _), key in zip(asked, keys, strict=True):
            record = None if key is None else next(records)
            if record is not None:
                self._at[at] = len(self._written)
                self._written.append(token_bytes((record.prompt_len, *record.token_ids.tolist())))


@dataclass(frozen=True, slots=True)
class ToldSet:
    """A set of the first teacher whose beliefs are kept, and the sequences that answer it."""

    asked: SequenceSet
    sequences: Sequences

    def answered(self) -> Iterator[tuple[Request, ScoreRequest]]:
        """Each request whose sequence is known, with that."""
        known = self.sequences.known
        return zip(taken(self.asked.requests, known), taken(self.sequences, known), strict=True)

    def scored_by(self, teacher: TeacherConfig, *, planned: bool) -> SequenceSet:
        """What another teacher is asked about it; a sequence that is not known is left out, or `planned`."""
        rows = self.sequences if planned else TakenRows(self.sequences, self.sequences.known)
        return SequenceSet(self.asked.source, self.asked.split, rows, teacher.top_k, teacher.encoding)


def told_sets(sets: Sequence[SequenceSet], *, cache: Holdings) -> tuple[ToldSet, ...]:
    """Those sets of the first teacher about which others are asked, by what its cache holds now.

    Raises:
        ConfigError: there is no room for the sequences.
    """
    return tuple(ToldSet(part, Sequences(part.requests, cache=cache)) for part in sets if part.k)


def sequence_of(record: TeacherRecord) -> ScoreRequest:
    """A sequence that somebody wrote, as another teacher is asked to score it."""
    return ScoreRequest(tuple(record.token_ids.tolist()), record.prompt_len)


def _unpacked(written: bytes) -> ScoreRequest:
    prompt_len, *token_ids = token_ids_of(written)
    return ScoreRequest(tuple(token_ids), prompt_len)


def _longest(request: Request) -> ScoreRequest:
    if isinstance(request, ScoreRequest):
        return request
    return ScoreRequest(request.prompt_ids + (0,) * request.max_new_tokens, len(request.prompt_ids))
