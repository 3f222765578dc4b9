"""What a rollout asks of an engine: turns.

In a turn an engine takes new requests in beside those that it has under way, works until few enough are left, and gives
what has finished. What is left waits inside the engine and goes on in the next turn. So the longest of a
batch holds nothing up: its owner decides how many may stay behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Protocol

from cache import TeacherRecord
from cache.protocols import Failure, Outcome
from teacher_server.requests import Asked

Tagged = tuple[int, Asked]
"""A request, and the number by which its owner knows it."""

Answered = tuple[int, TeacherRecord | Failure]
"""A tag and its outcome."""


class RolloutEngine(Protocol):
    """An engine that works in turns."""

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        """Take `asked` in, work until at most `leave` requests are unfinished, and give what has finished.

        Raises:
            EngineError: the engine died; everything under way is lost.
        """
        ...

    def finish(self) -> None:
        """Drop what is under way."""
        ...


class RolloutPool(Protocol):
    """Engines that hold the same weights."""

    @property
    def block_tokens(self) -> int:
        """Tokens of a KV block: of a sequence that comes back, an engine has kept whole blocks."""
        ...

    @property
    def capacity(self) -> int:
        """Sequences that may grow at the same time, few enough for their KV blocks to be kept between turns."""
        ...

    @property
    def shares_processor(self) -> bool:
        """Whether what these engines compute slows other engines down."""
        ...

    def engines(self) -> Sequence[RolloutEngine]:
        """The engines, ready to work."""
        ...


class WorkingSource(Protocol):
    """An engine that answers requests of both kinds side by side (`FakeTeacher`, `VllmEngine`)."""

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `VllmEngine.work`."""
        ...


class Turns:
    """Turns of an engine that lives in this process."""

    def __init__(self, source: WorkingSource) -> None:
        self._source = source
        self._waiting: deque[Tagged] = deque()
        self._tags: dict[int, int] = {}
        self._finished: Generator[list[Outcome], None, None] | None = None

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        """See `RolloutEngine.turn`."""
        if self._finished is None:
            self._finished = self._source.work(self._feed())
        self._waiting.extend(asked)
        answers: list[Answered] = []
        while len(self._waiting) + len(self._tags) > leave:
            answers += [(self._tags.pop(position), outcome) for position, outcome in next(self._finished)]
        return answers

    def finish(self) -> None:
        """See `RolloutEngine.finish`."""
        if self._finished is not None:
            self._finished.close()
        self._finished = None
        self._waiting.clear()
        self._tags.clear()

    def _feed(self) -> Iterator[Asked | None]:
        """Never ends: between two turns there is simply nothing to be had."""
        position = 0
        while True:
            if not self._waiting:
                yield None
                continue
            self._tags[position], asked = self._waiting.popleft()
            position += 1
            yield asked
