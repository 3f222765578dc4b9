"""What a door refuses to ask or to give out for what its text says, whoever asks and whatever the cache holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from cache.answers import Request
from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord
from teacher_server.http.wire import Answered

Ask = Callable[[Sequence[Request]], Awaitable[list[Answered[TeacherRecord]]]]


class Rules(Protocol):
    """Whoever judges the texts of a door; both are asked in threads, for they may take long."""

    def why_unasked(self, token_ids: Sequence[int]) -> str | None:
        """Why what these tokens say is not put to the teacher, in words that repeat nothing of it; None where it is."""
        ...

    def why_withheld(self, token_ids: Sequence[int]) -> str | None:
        """Why an answer of these tokens is not given out; None where it is."""
        ...


async def under_rules(requests: Sequence[Request], rules: Rules, *, ask: Ask) -> list[Answered[TeacherRecord]]:
    """The answers to requests in their order, of which refused ones are not asked and withheld ones not given.

    What a given sequence holds behind its prompt is the client's own text, and is judged with the prompt.
    """
    refused = await asyncio.to_thread(lambda: [rules.why_unasked(_said(each)) for each in requests])
    rest = [request for request, reason in zip(requests, refused, strict=True) if reason is None]
    answers = await ask(rest) if rest else []
    pairs = zip(answers, rest, strict=True)
    judged = iter(await asyncio.to_thread(lambda: [_judged(answer, request, rules) for answer, request in pairs]))
    return [next(judged) if reason is None else Answered(Failure(reason, "unwanted")) for reason in refused]


def _said(request: Request) -> tuple[int, ...]:
    return request.prompt_ids if isinstance(request, GenerateRequest) else request.token_ids


def _judged(answer: Answered[TeacherRecord], request: Request, rules: Rules) -> Answered[TeacherRecord]:
    if isinstance(answer.outcome, Failure) or not isinstance(request, GenerateRequest):
        return answer
    reason = rules.why_withheld(answer.outcome.response_ids.tolist())
    return answer if reason is None else Answered(Failure(reason, "unwanted"))
