"""What stands behind the routes of an app, whichever protocol they speak: desks, quotas, limits, who is inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cache import SignalRecord, SignalRequest, TeacherRecord
from cache.answers import Request
from cache.protocols import Failure
from teacher_server.http.answering import answers_to
from teacher_server.http.desk import Desk, Question, Record
from teacher_server.http.exchange import Exchange
from teacher_server.http.layers import Admission
from teacher_server.http.metrics import Metrics
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal
from teacher_server.http.rules import under_rules
from teacher_server.http.served import DoorLimits, Served
from teacher_server.http.signals.served import ServedSignals
from teacher_server.http.wire import Answered
from teacher_server.requests import Asked

WhyNotReady = Callable[[], str | None]
"""Why the teachers cannot answer (no engine of theirs does), or None where they can."""

Behind = TypeVar("Behind", Served, ServedSignals)


@dataclass(frozen=True, slots=True)
class Door:
    """What stands behind the routes of an app: `app.state.door`.

    `desks` are of teachers that write and score sequences, `signals` of those that say what they see in texts.
    """

    desks: Mapping[str, Served]
    signals: Mapping[str, ServedSignals]
    quotas: Quotas
    limits: DoorLimits
    why_not_ready: WhyNotReady
    metrics: Metrics
    admission: Admission

    async def drain(self) -> None:
        """Let nobody in any more, answer who is inside, then write what was answered; safe to call again."""
        await self.admission.close()
        await asyncio.gather(*(desk.close() for desk in every_desk(self.desks, self.signals).values()))

    @property
    def unwritten(self) -> str | None:
        """That the disk refuses what a teacher said, or None."""
        failing = any(desk.writing_fails for desk in every_desk(self.desks, self.signals).values())
        return "what was answered cannot be written" if failing else None

    def served(self, name: str | None, *, field: str = "teacher") -> tuple[str, Served]:
        """A teacher of sequences by its name, or the only one; `field` is where the name stands.

        Raises:
            Refusal: 404 for an unknown name, 422 without one where there are several, or for one of the other kind.
        """
        return _named(name, self.desks, other=self.signals, ask="/v1/signals", field=field)

    def served_signals(self, name: str | None) -> tuple[str, ServedSignals]:
        """A teacher of signals by its name, or the only one.

        Raises:
            Refusal: see `served`.
        """
        return _named(name, self.signals, other=self.desks, ask="/v1/score or /v1/generate", field="teacher")

    async def answers(
        self, exchange: Exchange, requests: Sequence[Request], *, k: int, name: str
    ) -> list[Answered[TeacherRecord]]:
        """The answers of a teacher in the order of the requests, each with `k` log-probabilities a position.

        They are charged to whoever asks, and counted.

        Raises:
            Refusal: see `answers_to`, and its other errors.
        """
        served = self.desks[name]

        async def ask(wanted: Sequence[Request]) -> list[Answered[TeacherRecord]]:
            questions = [Asked(request, k) for request in wanted]
            return await self._answers(exchange, questions, desk=served.desk, name=name)

        if served.rules is None:
            return await ask(requests)
        answers = await under_rules(requests, served.rules, ask=ask)
        exchange.rows = len(requests)
        return answers

    async def seen(
        self, exchange: Exchange, questions: Sequence[SignalRequest], *, name: str, per_row: int
    ) -> list[Answered[SignalRecord]]:
        """What a teacher sees, in the order of the questions, of which each text has `per_row`; as `answers`."""
        desk = self.signals[name].desk
        return await self._answers(exchange, questions, desk=desk, name=name, per_row=per_row)

    async def _answers(
        self,
        exchange: Exchange,
        questions: Sequence[Question],
        *,
        desk: Desk[Question, Record],
        name: str,
        per_row: int = 1,
    ) -> list[Answered[Record]]:
        assert exchange.key is not None
        exchange.rows = len(questions)
        answers = await answers_to(questions, desk=desk, key=exchange.key, quotas=self.quotas, per_row=per_row)
        exchange.hits = sum(each.cached for each in answers)
        asked = [each.outcome for each in answers if not each.cached]
        exchange.teacher_tokens = desk.tokens(outcome for outcome in asked if not isinstance(outcome, Failure))
        self.metrics.count_hits(name, exchange.hits)
        return answers


def every_desk(desks: Mapping[str, Served], signals: Mapping[str, ServedSignals]) -> dict[str, Desk[Any, Any]]:
    """The desks of all teachers by their names."""
    return {name: served.desk for name, served in desks.items()} | {name: each.desk for name, each in signals.items()}


def _named(
    name: str | None, behind: Mapping[str, Behind], *, other: Mapping[str, Any], ask: str, field: str
) -> tuple[str, Behind]:
    known = ", ".join(behind)
    if name is None and len(behind) > 1:
        raise Refusal(422, "which_teacher", f"{field}: name one of {known}", param=field)
    if name in other or (name is None and not behind):
        reason = f"{field}: what stands behind this door does not answer that: ask {ask}"
        raise Refusal(422, "other_teacher", reason, param=field)
    name = next(iter(behind)) if name is None else name
    if name not in behind:
        raise Refusal(404, "unknown_teacher", f"{field}: no such one here, only {known or 'others'}", param=field)
    return name, behind[name]
