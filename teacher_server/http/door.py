"""What stands behind the routes of an app, whichever protocol they speak: desks, quotas, limits, who is inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache.answers import Request
from teacher_server.http.answering import answers_to, taken_tokens
from teacher_server.http.exchange import Exchange
from teacher_server.http.layers import Admission
from teacher_server.http.metrics import Metrics
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import DoorLimits, Served
from teacher_server.http.wire import Answered

WhyNotReady = Callable[[], str | None]
"""Why the teachers cannot answer (no engine of theirs does), or None where they can."""


@dataclass(frozen=True, slots=True)
class Door:
    """What stands behind the routes of an app: `app.state.door`."""

    desks: Mapping[str, Served]
    quotas: Quotas
    limits: DoorLimits
    why_not_ready: WhyNotReady
    metrics: Metrics
    admission: Admission

    async def drain(self) -> None:
        """Let nobody in any more, answer who is inside, then write what was answered; safe to call again."""
        await self.admission.close()
        await asyncio.gather(*(served.desk.close() for served in self.desks.values()))

    @property
    def unwritten(self) -> str | None:
        """That the disk refuses what a teacher said, or None."""
        failing = any(served.desk.writing_fails for served in self.desks.values())
        return "what was answered cannot be written" if failing else None

    def served(self, name: str | None, *, field: str = "teacher") -> tuple[str, Served]:
        """A teacher by its name, or the only one; `field` is where the name stands.

        Raises:
            Refusal: 404 for an unknown name, 422 without one where there are several.
        """
        known = ", ".join(self.desks)
        if name is None and len(self.desks) > 1:
            raise Refusal(422, "which_teacher", f"{field}: name one of {known}", param=field)
        name = next(iter(self.desks)) if name is None else name
        if name not in self.desks:
            raise Refusal(404, "unknown_teacher", f"{field}: no such one here, only {known}", param=field)
        return name, self.desks[name]

    async def answers(self, exchange: Exchange, requests: Sequence[Request], *, k: int, name: str) -> list[Answered]:
        """The answers of a teacher in the order of the requests, charged to whoever asks and counted.

        Raises:
            Refusal: see `answers_to`, and its other errors.
        """
        assert exchange.key is not None
        exchange.rows = len(requests)
        answers = await answers_to(requests, k=k, served=self.desks[name], key=exchange.key, quotas=self.quotas)
        exchange.hits = sum(each.cached for each in answers)
        exchange.teacher_tokens = taken_tokens(answers)
        self.metrics.count_hits(name, exchange.hits)
        return answers
