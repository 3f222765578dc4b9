"""A teacher behind a door as a `SignalSource`: what a pipeline or a notebook asks a shared teacher of a task.

As `teacher_server.http.client` does it: who the teacher is, the door says, keys are computed here, bodies are binary,
connections are kept, and several batches are under way at once. What is asked about one text goes in one body, whose
texts are all asked the same; one that the door refuses fails alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any

import httpx

from cache import SignalRecord, SignalRequest
from cache.identity import Identity
from cache.protocols import QUOTED, Failure
from cache.signals import Signal, signal_key
from teacher_server.batching import Batches
from teacher_server.http.connection import SPLIT_BY, DoorClient, DoorSettings
from teacher_server.http.signals.bodies import MOST_SIGNALS
from teacher_server.http.signals.served import SignalFacts
from teacher_server.http.signals.wire import decode_signals
from teacher_server.http.wire import WireError
from teacher_server.insisting import Refused

PATH = "/v1/signals"

Text = str | tuple[str, str]
"""A text, or a pair of texts: of a question and its passage the passage comes second."""

Reply = SignalRecord | Failure
Outcome = tuple[int, Reply]


@dataclass(frozen=True, slots=True)
class DoorSignals:
    """What the door says of a teacher that gives signals: its name there, what it can be asked, its licence."""

    name: str
    facts: SignalFacts
    licence: str | None


@dataclass(frozen=True, slots=True)
class _About:
    """What is asked about one text."""

    token_ids: tuple[int, ...]
    split: int
    signals: tuple[Signal, ...]

    @property
    def requests(self) -> list[SignalRequest]:
        return [SignalRequest(self.token_ids, self.split, signal) for signal in self.signals]


class HttpSignals(DoorClient):
    """A teacher of signals behind a door. Close it, or use it as a context.

    Raises:
        EngineError: the door cannot be reached within its budget, lets nobody in with this token, or lacks the teacher;
            or the token would leave this machine unencrypted.
    """

    def __init__(self, settings: DoorSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings, transport=transport)
        self.told = self._told("signals", _told)
        self.facts = self.told.facts
        self.identity = self.facts.identity
        self._digest = self.identity.digest()

    def signals(self, requests: Iterable[SignalRequest]) -> Iterator[Outcome]:
        """See `cache.protocols.SignalSource`; equal requests of any client are asked once.

        Raises:
            EngineError: another teacher answers, or the budget is used up.
        """
        with closing(self.passes(requests)) as steps:
            for finished in steps:
                yield from finished

    def passes(self, requests: Iterable[SignalRequest]) -> Generator[list[Outcome], None, None]:
        """As `signals`, with all that one batch has brought at once."""
        settings, places = self._settings, dict[int, tuple[int, ...]]()
        batches: Batches[_About, Sequence[Reply]] = Batches(
            self._ask,
            self._refusal,
            rows=settings.batch_rows,
            at_once=settings.batches,
            let_go=self._door.let_go,
            kind=_signals_of,
        )
        with closing(batches.work(_by_text(requests, places))) as steps:
            for finished in steps:
                yield [(place, reply) for number, said in finished for place, reply in _each(places.pop(number), said)]

    def read(self, texts: Sequence[Text], *, signals: Sequence[Signal]) -> list[list[Reply]]:
        """Every one of `signals` of each text, in their order, of texts that the door makes tokens of.

        A batch is refused as a whole, so that nothing of it is asked where one text cannot be.

        Raises:
            EngineError: the door refuses a text, another teacher answers, or the budget is used up.
        """
        found: list[list[Reply]] = []
        for begin in range(0, len(texts), self._settings.batch_rows):
            some = texts[begin : begin + self._settings.batch_rows]
            rows = [{"text": each} if isinstance(each, str) else {"text": each[0], "pair": each[1]} for each in some]
            replies = self._asked(rows, signals)
            found += [replies[at : at + len(signals)] for at in range(0, len(replies), len(signals))]
        return found

    def _refusal(self, about: _About) -> str | None:
        """Why this teacher cannot be asked about a text, as far as it can be told without asking the door."""
        tokens, longest = len(about.token_ids), self.facts.max_tokens
        return f"{tokens} tokens, and the teacher reads {longest}" if tokens > longest else None

    def _ask(self, batch: Sequence[_About]) -> list[Sequence[Reply]]:
        """What is seen in texts that are asked the same; what the door refuses of them fails alone."""
        signals = batch[0].signals
        rows = [{"token_ids": list(each.token_ids), "split": each.split} for each in batch]
        try:
            replies = self._asked(rows, signals)
        except Refused as error:
            if error.status not in SPLIT_BY:
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                return self._ask(batch[:half]) + self._ask(batch[half:])
            return [self._one_by_one(batch[0], error)]
        found = [replies[at : at + len(signals)] for at in range(0, len(replies), len(signals))]
        for about, said in zip(batch, found, strict=True):
            for request, reply in zip(about.requests, said, strict=True):
                if isinstance(reply, SignalRecord) and reply.key != signal_key(self._digest, request):
                    raise WireError(f"{reply.signal} of another text, where {request.signal} was asked for")
        return list(found)

    def _one_by_one(self, about: _About, error: Refused) -> Sequence[Reply]:
        """The halves of what is asked about a text that was refused, down to one signal."""
        if len(about.signals) == 1:
            return [Failure(f"the server refused the request{QUOTED}{error}")]
        half = len(about.signals) // 2
        halves = about.signals[:half], about.signals[half:]
        return [reply for signals in halves for reply in self._ask([_About(about.token_ids, about.split, signals)])[0]]

    def _asked(self, rows: Sequence[Mapping[str, Any]], signals: Sequence[Signal]) -> list[Reply]:
        """The answers to one body, all signals of one text after another."""
        said = [asdict(signal) for signal in signals]
        content = self._door.post(PATH, {"teacher": self.told.name, "signals": said, "requests": list(rows)})
        replies = [each.outcome for each in decode_signals(content, identity=self._digest)]
        if len(replies) != len(rows) * len(signals):
            raise WireError(f"{len(replies)} answers to {len(signals)} questions about each of {len(rows)} texts")
        for at, reply in enumerate(replies):
            signal = signals[at % len(signals)]
            if isinstance(reply, SignalRecord) and (reply.signal != signal or reply.width != self.facts.width(signal)):
                raise WireError(f"{reply.signal} of {reply.width} values where {signal} was asked for")
        return replies


def _told(said: Mapping[str, Any], identity: Identity) -> DoorSignals:
    facts = SignalFacts(
        identity,
        str(said["label"]),
        max_tokens=int(said["max_tokens"]),
        vocab=int(said["vocab"]),
        gives=said["gives"],
        labels=tuple(said["labels"]),
        layers=int(said["layers"]),
        hidden=int(said["hidden"]),
    )
    return DoorSignals(said["name"], facts, said["licence"])


def _by_text(requests: Iterable[SignalRequest], places: dict[int, tuple[int, ...]]) -> Iterator[_About]:
    """What is asked about each text by requests that follow each other; `places` is told theirs, by its number."""
    number = 0
    for (token_ids, split), about in groupby(enumerate(requests), key=lambda each: (each[1].token_ids, each[1].split)):
        while some := list(islice(about, MOST_SIGNALS)):
            places[number] = tuple(place for place, _ in some)
            number += 1
            yield _About(token_ids, split, tuple(request.signal for _, request in some))


def _signals_of(about: _About) -> tuple[Signal, ...]:
    return about.signals


def _each(places: Sequence[int], said: Sequence[Reply] | Failure) -> Iterator[Outcome]:
    replies = [said] * len(places) if isinstance(said, Failure) else said
    return zip(places, replies, strict=True)
