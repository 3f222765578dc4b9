"""Teachers that give signals behind the door, and how a body becomes questions to them: checked before any is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cache import SignalRecord, SignalRequest
from cache.identity import Identity
from cache.signals import POSITIONS, SPAN_WIDTH, Signal, SignalName
from teacher_server.http.desk import Desk
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import DoorLimits, reading_texts, require_at_most
from teacher_server.http.signals.bodies import AboutIds, AboutText, AboutWords, SignalsBody
from teacher_server.http.signals.texts import ReadsTexts, ReadText


@dataclass(frozen=True, slots=True)
class SignalFacts:
    """What is told of a teacher that gives signals.

    `gives` is what its head says, None without one; `labels` are those of the head, in the order of its logits. It has
    `layers` blocks of width `hidden`, and reads up to `max_tokens` tokens of `vocab` ones. One that shows no states has
    0 of both. `label` is for people.
    """

    identity: Identity
    label: str
    max_tokens: int
    vocab: int
    gives: SignalName | None
    labels: tuple[str, ...]
    layers: int
    hidden: int

    def refusal(self, signal: Signal) -> str | None:
        """Why the teacher does not give a signal; None where it does."""
        if signal.layer is not None and not self.hidden:
            return f"{signal}: the teacher answers in words, and its engines show no states"
        if signal.layer is not None:
            return None if signal.layer <= self.layers else f"{signal}: the teacher has {self.layers} layers"
        said = "it has no head" if self.gives is None else f"its head gives {self.gives}"
        return None if signal.name == self.gives else f"{signal}: not of this teacher: {said}"

    def every_kind(self, texts: Iterable[ReadText]) -> tuple[SignalRequest, ...]:
        """What its head says of texts, as far as it reads them, and states of its last layer: to compare engines on."""
        signals = [Signal("state", self.layers, position) for position in POSITIONS]
        signals += [] if self.gives is None else [Signal(self.gives)]
        read = [text.token_ids[: self.max_tokens] for text in texts]
        return tuple(SignalRequest(ids, len(ids), signal) for ids in read for signal in signals)

    def width(self, signal: Signal) -> int:
        """W of a signal that it gives."""
        if signal.name == "span_logits":
            return SPAN_WIDTH
        return self.hidden if signal.name == "state" else len(self.labels)


@dataclass(frozen=True, slots=True)
class ServedSignals:
    """A teacher behind the door that gives signals."""

    desk: Desk[SignalRequest, SignalRecord]
    facts: SignalFacts
    texts: ReadsTexts


@dataclass(frozen=True, slots=True)
class SignalInquiry:
    """What a body asks: every one of `signals` of each of `texts`."""

    texts: tuple[ReadText, ...]
    signals: tuple[Signal, ...]

    @property
    def questions(self) -> list[SignalRequest]:
        """All signals of one text after another."""
        return [text.asks(signal) for text in self.texts for signal in self.signals]


def asked_signals(body: SignalsBody, *, served: ServedSignals, limits: DoorLimits) -> SignalInquiry:
    """What a body asks.

    Raises:
        Refusal: 413 where it is too much at once, 422 where the teacher cannot answer it.
    """
    signals = tuple(each.signal() for each in body.signals)
    for at, signal in enumerate(signals):
        if (reason := served.facts.refusal(signal)) is not None:
            raise Refusal(422, "unknown_signal", f"signals[{at}]: {reason}", param=f"signals[{at}]")
    require_at_most("requests", len(body.requests), at_most=limits.most_rows, unit="rows")
    texts = tuple(_read(row, served=served, place=f"requests[{at}]") for at, row in enumerate(body.requests))
    require_at_most("requests", sum(len(text.token_ids) for text in texts), at_most=limits.most_tokens, unit="tokens")
    values = sum(signal.rows(len(text.token_ids)) * served.facts.width(signal) for text in texts for signal in signals)
    require_at_most("signals", values, at_most=limits.most_numbers, unit="values")
    return SignalInquiry(texts, signals)


def _read(row: AboutIds | AboutText | AboutWords, *, served: ServedSignals, place: str) -> ReadText:
    facts = served.facts
    with reading_texts(place):
        if isinstance(row, AboutIds):
            text = served.texts.ids(tuple(row.token_ids), row.split)
        elif isinstance(row, AboutWords):
            text = served.texts.words(row.words)
        else:
            text = served.texts.text(row.text, row.pair)
    tokens = len(text.token_ids)
    if tokens > facts.max_tokens:
        reason = f"{place}: {tokens} tokens, and the teacher reads {facts.max_tokens}: ask about a part of it"
        raise Refusal(422, "text_too_long", reason, param=place)
    if text.split > tokens:
        raise Refusal(422, "invalid_request", f"{place}.split={text.split} is behind its {tokens} tokens", param=place)
    if max(text.token_ids) >= facts.vocab:
        reason = f"{place}: token id {max(text.token_ids)} is outside the vocabulary of {facts.vocab}"
        raise Refusal(422, "invalid_request", reason, param=place)
    return text
