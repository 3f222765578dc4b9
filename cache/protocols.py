"""The seams between the folders: whoever writes sequences and scores them, and whoever says what it sees in them.

`teacher_server` implements it (a vLLM engine, and a deterministic fake), `orchestration` wires it. The rest of
the program sees only these types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cache.identity import TeacherIdentity
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from cache.signals import SignalRecord, SignalRequest
from cache.views import CacheView

QUOTED = "; it says: "
"""Behind it a reason quotes another program, which may repeat what it was asked."""


FailureCode = Literal["not_answered", "forgotten", "unwanted"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that is not answered, with the reason in one line.

    `code` says which kind of reason that is: the engine could not, it was forgotten, or it is not wanted.
    """

    reason: str
    code: FailureCode = "not_answered"


def without_quotes(reason: str) -> str:
    """A reason in words of this program alone, which hold no text of a row."""
    return reason.partition(QUOTED)[0]


Outcome = tuple[int, TeacherRecord | Failure]

Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is in all."""


class SequenceSource(Protocol):
    """A model that writes sequences and says what it believes about them."""

    identity: TeacherIdentity

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """Write one completion a request.

        `requests` is drawn from lazily, as the engine has room, so a queue may stand behind it. Yields
        (position of the request in `requests`, record or failure) in the order of completion. `k` is the number of
        log-probabilities kept a position; 0 keeps the text alone.
        """
        ...

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """Teacher-forced prefill over given tokens; same conventions as `generate`, k >= 1."""
        ...


class SignalSource(Protocol):
    """A model that says what it believes about whole sequences and their tokens (`cache.signals`)."""

    identity: TeacherIdentity

    def signals(self, requests: Iterable[SignalRequest]) -> Iterator[tuple[int, SignalRecord | Failure]]:
        """Answer every request.

        `requests` is drawn from lazily. Several of one sequence that follow each other cost one forward pass. Yields
        (position of the request in `requests`, record or failure) in the order of completion.
        """
        ...


@runtime_checkable
class RecordReader(Protocol):
    """Whatever reads the rows of a view: the cache of one teacher, or several of them (`cache.combined`)."""

    def iter_blocks(
        self, view: CacheView, indices: Iterable[NDArray[np.integer]], *, prefetch: int = 0
    ) -> Iterator[list[TeacherRecord]]:
        """For each array of positions in the view its records, in that order.

        With `prefetch` that many arrays are read before they are asked for.

        Raises:
            CacheError: the view is of another teacher, or a row of it was lost or damaged.
        """
        ...
