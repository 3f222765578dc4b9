"""One teacher that writes sequences and scores them, behind the door."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cache import TeacherCache
from cache.answers import Request
from cache.keys import generation_key
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import RecordError
from teacher_server.http.desk import Desk, KeepingTerms, log_not_kept
from teacher_server.requests import Asked, most_tokens


class Asking(Protocol):
    """Whoever really answers: an engine of this process, or many of a cluster."""

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        """The answer to one request with `k` log-probabilities a position.

        Raises:
            EngineError: an engine died of it, or with it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskTerms(KeepingTerms):
    """Of a teacher of sequences: `vocab` is V and `most_k` the largest k that its engines return."""

    vocab: int
    most_k: int
    encoding: str = "topk-u8"


class SequenceDesk(Desk[Asked, TeacherRecord]):
    """Answers in sequences, each with the log-probabilities that it was asked for."""

    terms: DeskTerms

    def __init__(self, cache: TeacherCache, asking: Asking, terms: DeskTerms) -> None:
        super().__init__(cache, terms)
        self._asking = asking
        self._identity = cache.identity.digest()

    def together(self, questions: Iterable[Asked]) -> list[tuple[Asked, ...]]:
        """See `Desk`: engines batch by themselves."""
        return [(each,) for each in questions]

    def most_tokens(self, together: Sequence[Asked]) -> int:
        """See `Desk`."""
        return sum(most_tokens(each.request) for each in together)

    def tokens(self, records: Iterable[TeacherRecord]) -> int:
        """See `Desk`."""
        return sum(len(record.token_ids) for record in records)

    def request(self, question: Asked) -> Request:
        """See `Desk`."""
        return question.request

    def find(self, questions: Sequence[Asked]) -> list[TeacherRecord | None]:
        """See `Desk`."""
        found: list[TeacherRecord | None] = [None] * len(questions)
        for k in {each.k for each in questions}:
            mine = [at for at, each in enumerate(questions) if each.k == k]
            keys = self._cache.lookup([questions[at].request for at in mine], k=k)
            there = [(at, key) for at, key in zip(mine, keys, strict=True) if key is not None]
            records = self._cache.get_many([key for _, key in there], k=k)
            for (at, _), record in zip(there, records, strict=True):
                found[at] = record
        return found

    def also_answers(self, question: Asked, record: TeacherRecord) -> dict[Asked, TeacherRecord]:
        """See `Desk`: what was written with log-probabilities is scored, and its text is there."""
        if not record.k or isinstance(question.request, ScoreRequest):
            return {}
        return {Asked(_as_score(record), record.k): record, replace(question, k=0): _text_of(record)}

    async def _asked(self, together: tuple[Asked, ...]) -> dict[Asked, TeacherRecord | Failure]:
        [asked] = together
        stored = await asyncio.to_thread(self._stored_text, asked)
        request = asked.request if stored is None else _as_score(stored)
        outcome = await self._insist(lambda: self._asking.answer(request, k=asked.k))
        if stored is not None and isinstance(outcome, TeacherRecord):
            outcome = replace(outcome, finish=stored.finish)
        return {asked: outcome}

    def _stored_text(self, asked: Asked) -> TeacherRecord | None:
        """A stored completion that lacks log-probabilities alone: it is scored, never written anew."""
        if not asked.k or isinstance(asked.request, ScoreRequest):
            return None
        [key] = self._cache.lookup([asked.request], k=0)
        return None if key is None else self._cache.get_many([key], k=0)[0]

    def _write(self, fresh: Mapping[Asked, TeacherRecord]) -> None:
        """One segment for each k."""
        by_k: dict[int, list[tuple[Request, TeacherRecord]]] = defaultdict(list)
        for asked, record in fresh.items():
            by_k[record.k].append((asked.request, record))
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
                        log_not_kept(error)
                writer.commit()


def _generation(request: Request, identity: str) -> tuple[bytes | None, int | None]:
    if isinstance(request, GenerateRequest):
        return generation_key(identity, request), request.max_new_tokens
    return None, None


def _as_score(record: TeacherRecord) -> ScoreRequest:
    return ScoreRequest(tuple(record.token_ids.tolist()), record.prompt_len)


def _text_of(record: TeacherRecord) -> TeacherRecord:
    return replace(
        record, topk_ids=None, topk_logprobs=None, target_logprobs=None, target_ranks=None, tail_logmass=None
    )
