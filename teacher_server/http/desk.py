"""One teacher behind the door: read through its cache, asked once, written back.

A request is answered, in this order, by the cache; by an answer that is not written yet; by one that is under way for
somebody else; or by the teacher. What it answers is written within `commit_every_s` and read from the cache from then
on, by everybody: pipelines, trainers, other doors. An answer that was given and lost with its process before it was
written is lost to the cache alone: whoever asks again pays for it again.

Nobody waits in an endless queue: what would have to wait behind more than `most_waiting_tokens` is refused
(`BusyError`) with the time after which it is worth trying again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from cache import TeacherCache
from cache.answers import Request
from cache.keys import generation_key
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import CacheError, DistillError, EngineError, RecordError
from teacher_server.http.wire import ENGINES_DIED, Answered
from teacher_server.requests import most_tokens

ATTEMPTS = 3
"""How many engines may die of a request before it is refused."""

REFRESH_S = 5.0
"""How long what others commit may go unnoticed."""

_RATE_WINDOW_S = 60.0
_SHORTEST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0

_log = logging.getLogger(__name__)


class BusyError(DistillError):
    """Too much is waiting already; nothing was asked. `retry_after_s` is when some of it will be done."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _busy, (str(self), self.retry_after_s)


class Asking(Protocol):
    """Whoever really answers: an engine of this process, or many of a cluster."""

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        """The answer to one request with `k` log-probabilities a position.

        Raises:
            EngineError: an engine died of it, or with it.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeskTerms:
    """What is known of the teacher, and how much it is asked at once.

    `vocab` is V and `most_k` the largest k that its engines return. `provenance` and `licence` go into every manifest.
    """

    vocab: int
    most_k: int
    licence: str | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    encoding: str = "topk-u8"
    most_waiting_tokens: int = 262_144
    commit_every_s: float = 5.0


@dataclass(slots=True)
class Counts:
    """What a desk did since it was opened. Rows are requests; tokens are those that the teacher read or wrote."""

    hits: int = 0
    shared: int = 0
    asked: int = 0
    failed: int = 0
    refused: int = 0
    teacher_tokens: int = 0
    committed_rows: int = 0
    commit_errors: int = 0


class Desk:
    """Answers for one teacher. Belongs to one event loop; call `close` from it."""

    def __init__(self, cache: TeacherCache, asking: Asking, terms: DeskTerms) -> None:
        self.counts = Counts()
        self.terms = terms
        self._cache, self._asking = cache, asking
        self._identity = cache.identity.digest()
        self._under_way: dict[tuple[Request, int], asyncio.Task[TeacherRecord | Failure]] = {}
        self._fresh: dict[tuple[Request, int], TeacherRecord] = {}
        self._waiting_tokens = 0
        self._settled: deque[tuple[float, int]] = deque()
        self._refreshed = -math.inf
        self._writing_fails = False
        self._committing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the teacher still has to read or write at most, for what was accepted."""
        return self._waiting_tokens

    @property
    def writing_fails(self) -> bool:
        """Whether the disk refused what was answered when it was last written."""
        return self._writing_fails

    async def answer(self, requests: Sequence[Request], *, k: int) -> list[Answered]:
        """The answers in the order of the requests, each with `k` log-probabilities a position.

        Whoever stops waiting is not charged again: what was asked goes on and is kept.

        Raises:
            BusyError: the rows that the teacher has to be asked for do not fit beside those that wait.
            CacheError: the cache cannot be read.
        """
        held = await self.held(requests, k=k)
        lacking = dict.fromkeys(each for each, record in zip(requests, held, strict=True) if record is None)
        new = [each for each in lacking if (each, k) not in self._under_way]
        self.counts.hits += sum(record is not None for record in held)
        self._require_room(new)
        self.counts.asked += len(new)
        self.counts.shared += len(lacking) - len(new)
        tasks = {each: self._under_way.get((each, k)) or self._ask(each, k=k) for each in lacking}
        # A client that goes away does not take the answer from others who wait for it.
        asked = {each: await asyncio.shield(task) for each, task in tasks.items()}
        return [
            Answered(asked[each]) if record is None else Answered(record, cached=True)
            for each, record in zip(requests, held, strict=True)
        ]

    async def held(self, requests: Sequence[Request], *, k: int) -> list[TeacherRecord | None]:
        """What is there already, in the order of the requests; nothing is asked.

        Raises:
            CacheError: the cache cannot be read.
        """
        while True:
            written = self.counts.committed_rows
            read = await asyncio.to_thread(self._read, requests, k)
            found = [record or self._fresh.get((each, k)) for each, record in zip(requests, read, strict=True)]
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
                await asyncio.to_thread(self._write, fresh)
            except CacheError as error:
                self.counts.commit_errors += 1
                self._writing_fails = True
                _log.error("answers cannot be written, they are kept and tried again: %s", error)
                return
            self._writing_fails = False
            self.counts.committed_rows += len(fresh)
            for name in fresh:
                del self._fresh[name]

    async def close(self) -> None:
        """Wait for what is under way, and write all that is answered."""
        while self._under_way:
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        if self._committer is not None:
            # Not while it writes: the thread would go on, and the same rows would be written beside it.
            async with self._committing:
                self._committer.cancel()
            with suppress(asyncio.CancelledError):
                await self._committer
        await self.commit()

    def _read(self, requests: Sequence[Request], k: int) -> list[TeacherRecord | None]:
        """What the cache has."""
        now = time.monotonic()
        if now - self._refreshed > REFRESH_S:
            self._refreshed = now
            self._cache.refresh()
        keys = self._cache.lookup(requests, k=k)
        there = [at for at, key in enumerate(keys) if key is not None]
        records: list[TeacherRecord | None] = [None] * len(requests)
        found = self._cache.get_many([key for key in keys if key is not None], k=k)
        for at, record in zip(there, found, strict=True):
            records[at] = record
        return records

    def _require_room(self, new: Sequence[Request]) -> None:
        """Refuse what would wait for too long."""
        wanted = sum(most_tokens(each) for each in new)
        room = self.terms.most_waiting_tokens
        # What is larger than all room is let in where nothing else waits: it would never be answered otherwise.
        if wanted and self._waiting_tokens and self._waiting_tokens + wanted > room:
            self.counts.refused += len(new)
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

    def _ask(self, request: Request, *, k: int) -> asyncio.Task[TeacherRecord | Failure]:
        name = (request, k)
        self._waiting_tokens += most_tokens(request)
        task = asyncio.create_task(self._answer_once(request, k=k))
        self._under_way[name] = task
        task.add_done_callback(lambda _: self._settle(name))
        return task

    def _settle(self, name: tuple[Request, int]) -> None:
        del self._under_way[name]
        tokens = most_tokens(name[0])
        self._waiting_tokens -= tokens
        self._settled.append((time.monotonic(), tokens))

    async def _answer_once(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        stored = await asyncio.to_thread(self._stored_text, request, k)
        outcome = await self._insist(request if stored is None else _as_score(stored), k=k)
        if isinstance(outcome, Failure):
            self.counts.failed += 1
            return outcome
        self.counts.teacher_tokens += len(outcome.token_ids)
        if stored is not None:
            outcome = replace(outcome, finish=stored.finish)
        self._fresh[request, k] = outcome
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_for_ever())
        return outcome

    def _stored_text(self, request: Request, k: int) -> TeacherRecord | None:
        """A stored completion that lacks log-probabilities alone: it is scored, never written anew."""
        if not k or isinstance(request, ScoreRequest):
            return None
        [key] = self._cache.lookup([request], k=0)
        return None if key is None else self._cache.get_many([key], k=0)[0]

    async def _insist(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        """An answer by another engine where one died; a request that several die of is refused."""
        for left in reversed(range(ATTEMPTS)):
            try:
                return await self._asking.answer(request, k=k)
            except EngineError as error:
                _log.warning("an engine died while it was asked: %s", error)
                if not left:
                    return Failure(f"{ATTEMPTS} {ENGINES_DIED}; the last: {error}")
        raise AssertionError("unreachable")

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.terms.commit_every_s)
            await self.commit()

    def _write(self, fresh: dict[tuple[Request, int], TeacherRecord]) -> None:
        """One segment for each k. An answer that breaks a rule is left out: it was given, and is not kept."""
        by_k: dict[int, list[tuple[Request, TeacherRecord]]] = defaultdict(list)
        for (request, _), record in fresh.items():
            by_k[record.k].append((request, record))
        terms = self.terms
        for rows in by_k.values():
            with self._cache.writer(
                vocab=terms.vocab, encoding=terms.encoding, provenance=terms.provenance, licence=terms.licence
            ) as writer:
                for request, record in rows:
                    named = _generation(request, self._identity)
                    try:
                        writer.add(record, generation_key=named[0], max_new_tokens=named[1])
                    except RecordError as error:
                        _log.error("an answer is not kept: %s", error)
                writer.commit()


def _generation(request: Request, identity: str) -> tuple[bytes | None, int | None]:
    if isinstance(request, GenerateRequest):
        return generation_key(identity, request), request.max_new_tokens
    return None, None


def _as_score(record: TeacherRecord) -> ScoreRequest:
    return ScoreRequest(tuple(record.token_ids.tolist()), record.prompt_len)


def _busy(message: str, retry_after_s: float) -> BusyError:
    return BusyError(message, retry_after_s=retry_after_s)
