"""Answers about signals as JSON, and what is told of teachers that give them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from cache import SignalRecord
from cache.protocols import Failure
from teacher_server.http.bodies import FailedRow, RowError
from teacher_server.http.signals.bodies import SignalRow, SignalTeacherBody, SignalValues
from teacher_server.http.signals.served import ServedSignals, SignalInquiry
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.wire import Answered


def json_signals(
    answers: Sequence[Answered[SignalRecord]], inquiry: SignalInquiry, *, teacher: str, served: ServedSignals
) -> bytes:
    """A `SignalsAnswer`, written text by text, so that others get a turn in between."""
    head = {
        "teacher": teacher,
        "identity": served.facts.identity.digest(),
        "signals": [asdict(signal) for signal in inquiry.signals],
    }
    each = len(inquiry.signals)
    rows = ",".join(
        _row(text, answers[at * each : (at + 1) * each]).model_dump_json(exclude_none=True)
        for at, text in enumerate(inquiry.texts)
    )
    return f'{json.dumps(head)[:-1]}, "rows": [{rows}]}}'.encode()


def told_signals(name: str, served: ServedSignals) -> SignalTeacherBody:
    """What `GET /v1/teachers` says of such a teacher."""
    facts = served.facts
    return SignalTeacherBody(
        name=name,
        identity=facts.identity.digest(),
        fields=asdict(facts.identity),
        verifiable=facts.identity.verifiable,
        label=facts.label,
        licence=served.desk.terms.licence,
        max_tokens=facts.max_tokens,
        vocab=facts.vocab,
        gives=facts.gives,
        labels=list(facts.labels),
        layers=facts.layers,
        hidden=facts.hidden,
    )


def _row(text: ReadText, answers: Sequence[Answered[SignalRecord]]) -> SignalRow:
    places = None if text.places is None else [None if place is None else list(place) for place in text.places]
    return SignalRow(
        token_ids=list(text.token_ids), split=text.split, places=places, signals=[_values(each) for each in answers]
    )


def _values(answer: Answered[SignalRecord]) -> SignalValues | FailedRow:
    if isinstance(answer.outcome, Failure):
        return FailedRow(error=RowError(code=answer.outcome.code, reason=answer.outcome.reason))
    return SignalValues(values=answer.outcome.values.tolist(), cached=answer.cached)
