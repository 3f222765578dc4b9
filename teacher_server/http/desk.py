"""One teacher behind the door: read through its cache, asked once, written back.

A question is answered, in this order, by the cache; by an answer that is not written yet; by one that is under way for
somebody else; or by the teacher. What it answers is written within `commit_every_s` and read from the cache from then
on, by everybody: pipelines, trainers, other doors. An answer that was given and lost with its process before it was
written is lost to the cache alone: whoever asks again pays for it again.

What was forgotten (`cache.erasures`) is neither asked nor kept, also where it is forgotten while the door is open.

Nobody waits in an endless queue: what would have to wait behind more than `most_waiting_tokens` is refused
(`BusyError`) with the time after which it is worth trying again.

All of that is `Desk`; what is asked, and how it is kept, is said by its kinds: sequences (`sequence_desk`), and signals
(`signals.desk`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cache import TeacherCache
from cache.erasures import AnyRequest, Erasures
from cache.protocols import Failure
from configs.errors import CacheError, DistillError, EngineError, RecordError
from teacher_server.http.wire import ENGINES_DIED, Answered

ATTEMPTS = 3
"""How many engines may die of a request before it is refused."""

REFRESH_S = 5.0
"""How long what others commit may go unnoticed."""

_RATE_WINDOW_S = 60.0
_SHORTEST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0

_log = logging.getLogger(__name__)

Question = TypeVar("Question")
"""What is asked: hashable, equal where it is the same question."""

Record = TypeVar("Record")
"""What answers it, and is kept."""

Said = TypeVar("Said")


class BusyError(DistillError):
    """Too much is waiting already; nothing was asked. `retry_after_s` is when some of it will be done."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _busy, (str(self), self.retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingTerms:
    """How what a teacher says is kept, and how much may wait for it.

    `provenance` and `licence` go into every manifest.
    """

    encoding: str
    licence: str | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    most_waiting_tokens: int = 262_144
    commit_every_s: float = 5.0


@dataclass(slots=True)
class Counts:
    """What a desk did since it was opened. Rows are questions; tokens are those that the teacher read or wrote."""

    hits: int = 0
    shared: int = 0
    asked: int = 0
    failed: int = 0
    refused: int = 0
    teacher_tokens: int = 0
    committed_rows: int = 0
    commit_errors: int = 0


class Desk(ABC, Generic[Question, Record]):
    """Answers for one teacher. Belongs to one event loop; call `close` from it."""

    def __init__(self, cache: TeacherCache, terms: KeepingTerms) -> None:
        self.counts = Counts()
        self.terms = terms
        self._cache = cache
        self._erasures = Erasures()
        self._under_way: dict[Question, asyncio.Task[dict[Question, Record | Failure]]] = {}
        self._fresh: dict[Question, Record] = {}
        self._also: dict[Question, Record] = {}
        self._waiting_tokens = 0
        self._settled: deque[tuple[float, int]] = deque()
        self._refreshed = -math.inf
        self._writing_fails = False
        self._committing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None

    @abstractmethod
    def together(self, questions: Iterable[Question]) -> list[tuple[Question, ...]]:
        """Questions that the teacher answers in one go, side by side; every one stands somewhere."""
        ...

    @abstractmethod
    def most_tokens(self, together: Sequence[Question]) -> int:
        """Tokens that the teacher reads and writes at most for what it answers in one go."""
        ...

    @abstractmethod
    def tokens(self, records: Iterable[Record]) -> int:
        """Tokens that the teacher read or wrote for these answers."""
        ...

    @abstractmethod
    def request(self, question: Question) -> AnyRequest:
        """What the teacher is asked by a question."""
        ...

    @abstractmethod
    def find(self, questions: Sequence[Question]) -> list[Record | None]:
        """What the cache has, as far as it was read."""
        ...

    def also_answers(self, question: Question, record: Record) -> Mapping[Question, Record]:
        """Other questions that an answer to this one answers: what the cache makes of it once it is written."""
        return {}

    @abstractmethod
    async def _asked(self, together: tuple[Question, ...]) -> dict[Question, Record | Failure]:
        """What the teacher says, by an engine that lives (`_insist`)."""
        ...

    @abstractmethod
    def _write(self, fresh: Mapping[Question, Record]) -> None:
        """Commit answers to the cache. One that breaks a rule is left out: it was given, and is not kept."""
        ...

    @property
    def cache(self) -> TeacherCache:
        """Where what the teacher says is kept."""
        return self._cache

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the teacher still has to read or write at most, for what was accepted."""
        return self._waiting_tokens

    @property
    def writing_fails(self) -> bool:
        """Whether the disk refused what was answered when it was last written."""
        return self._writing_fails

    def cost(self, questions: Iterable[Question]) -> int:
        """Tokens that the teacher reads and writes at most for these questions, equal ones once."""
        return sum(map(self.most_tokens, self.together(dict.fromkeys(questions))))

    async def answer(self, questions: Sequence[Question]) -> list[Answered[Record]]:
        """The answers in the order of the questions.

        Whoever stops waiting is not charged again: what was asked goes on and is kept.

        Raises:
            BusyError: what the teacher has to be asked does not fit beside what waits.
            CacheError: the cache cannot be read.
        """
        held = await self.held(questions)
        wanted = dict.fromkeys(each for each, record in zip(questions, held, strict=True) if record is None)
        unasked = self._unasked(wanted)
        lacking = [each for each in wanted if each not in unasked]
        new = self.together(each for each in lacking if each not in self._under_way)
        asked = sum(map(len, new))
        self.counts.hits += sum(record is not None for record in held)
        self._require_room(new)
        self.counts.asked += asked
        self.counts.failed += len(unasked)
        self.counts.shared += len(lacking) - asked
        for each in new:
            self._ask(each)
        tasks = {each: self._under_way[each] for each in lacking}
        # A client that goes away does not take the answer from others who wait for it.
        said = {**unasked, **{each: (await asyncio.shield(task))[each] for each, task in tasks.items()}}
        return [
            Answered(said[each]) if record is None else Answered(record, cached=True)
            for each, record in zip(questions, held, strict=True)
        ]

    async def held(self, questions: Sequence[Question]) -> list[Record | None]:
        """What is there already, in the order of the questions; nothing is asked.

        Raises:
            CacheError: the cache cannot be read.
        """
        while True:
            written = self.counts.committed_rows
            read = await asyncio.to_thread(self._read, questions)
            found = [record or self._unwritten(each) for each, record in zip(questions, read, strict=True)]
            # What was written while the cache was read is in neither of the two.
            if written == self.counts.committed_rows or None not in found:
                return found

    async def commit(self) -> None:
        """Write what was answered since the last time; where the disk refuses it is kept and tried again."""
        async with self._committing:
            fresh = dict(self._fresh)
            if not fresh:
                return
            try:
                await asyncio.to_thread(self._write_remembered, fresh)
            except CacheError as error:
                self.counts.commit_errors += 1
                self._writing_fails = True
                _log.error("answers cannot be written, they are kept and tried again: %s", error)
                return
            self._writing_fails = False
            self.counts.committed_rows += len(fresh)
            for name, record in fresh.items():
                del self._fresh[name]
                for also in self.also_answers(name, record):
                    self._also.pop(also, None)

    async def close(self) -> None:
        """Wait for what is under way, and write all that is answered."""
        while self._under_way:
            await asyncio.gather(*set(self._under_way.values()), return_exceptions=True)
        if self._committer is not None:
            # Not while it writes: the thread would go on, and the same rows would be written beside it.
            async with self._committing:
                self._committer.cancel()
            with suppress(asyncio.CancelledError):
                await self._committer
        await self.commit()

    def _unwritten(self, question: Question) -> Record | None:
        return self._fresh.get(question) or self._also.get(question)

    def _unasked(self, questions: Iterable[Question]) -> dict[Question, Record | Failure]:
        """Those of which nobody is asked, and why."""
        reasons = {each: self._erasures.reason(self.request(each)) for each in questions}
        return {each: Failure(reason, "forgotten") for each, reason in reasons.items() if reason is not None}

    def _write_remembered(self, fresh: Mapping[Question, Record]) -> None:
        """Write what was not forgotten since it was asked.

        Raises:
            CacheError: the place refuses, or what was forgotten cannot be read.
        """
        self._erasures = Erasures.read(self._cache.root)
        gone = self._unasked(fresh)
        self._write({each: record for each, record in fresh.items() if each not in gone})

    def _read(self, questions: Sequence[Question]) -> list[Record | None]:
        """What the cache has, with what others committed a while ago."""
        now = time.monotonic()
        if now - self._refreshed > REFRESH_S:
            self._refreshed = now
            self._cache.refresh()
            self._erasures = Erasures.read(self._cache.root)
        return self.find(questions)

    def _require_room(self, new: Sequence[Sequence[Question]]) -> None:
        """Refuse what would wait for too long."""
        wanted = sum(map(self.most_tokens, new))
        room = self.terms.most_waiting_tokens
        # What is larger than all room is let in where nothing else waits: it would never be answered otherwise.
        if wanted and self._waiting_tokens and self._waiting_tokens + wanted > room:
            self.counts.refused += sum(map(len, new))
            raise BusyError(
                f"{self._waiting_tokens:,} tokens wait for the teacher and {wanted:,} more do not fit beside them "
                f"(at most {room:,})",
                retry_after_s=self._patience(wanted),
            )

    def _patience(self, wanted: int) -> float:
        """Seconds until the teacher has made room, at the rate of the last minute."""
        now = time.monotonic()
        while self._settled and self._settled[0][0] < now - _RATE_WINDOW_S:
            self._settled.popleft()
        done = sum(tokens for _, tokens in self._settled)
        excess = self._waiting_tokens + wanted - self.terms.most_waiting_tokens
        seconds = _RATE_WINDOW_S * excess / done if done else _LONGEST_WAIT_S
        return min(max(seconds, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)

    def _ask(self, together: tuple[Question, ...]) -> None:
        tokens = self.most_tokens(together)
        self._waiting_tokens += tokens
        # In nobody's context: what Ray Serve finds in that of a request it ends when the client goes away.
        task = asyncio.create_task(self._answer_once(together), context=Context())
        self._under_way |= dict.fromkeys(together, task)
        task.add_done_callback(lambda _: self._settle(together, tokens))

    def _settle(self, together: tuple[Question, ...], tokens: int) -> None:
        for each in together:
            del self._under_way[each]
        self._waiting_tokens -= tokens
        self._settled.append((time.monotonic(), tokens))

    async def _answer_once(self, together: tuple[Question, ...]) -> dict[Question, Record | Failure]:
        said = await self._asked(together)
        answers = {each: outcome for each, outcome in said.items() if not isinstance(outcome, Failure)}
        self.counts.failed += len(said) - len(answers)
        self.counts.teacher_tokens += self.tokens(answers.values())
        self._fresh |= answers
        for each, record in answers.items():
            self._also |= self.also_answers(each, record)
        if answers and self._committer is None:
            self._committer = asyncio.create_task(self._commit_for_ever())
        return said

    async def _insist(self, ask: Callable[[], Awaitable[Said]]) -> Said | Failure:
        """An answer by another engine where one died; what several die of is refused."""
        for left in reversed(range(ATTEMPTS)):
            try:
                return await ask()
            except EngineError as error:
                _log.warning("an engine died while it was asked: %s", error)
                if not left:
                    return Failure(f"{ATTEMPTS} {ENGINES_DIED}; the last: {error}")
        raise AssertionError("unreachable")

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.terms.commit_every_s)
            await self.commit()


def log_not_kept(error: RecordError) -> None:
    """Say that an answer breaks a rule."""
    _log.error("an answer is not kept: %s", error)


def _busy(message: str, retry_after_s: float) -> BusyError:
    return BusyError(message, retry_after_s=retry_after_s)
