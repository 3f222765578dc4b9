"""Language models that answer a task in words, as teachers that give signals: how likely labels are to them.

A text becomes a question, and each label its words behind it: a sequence that is scored. These are ordinary rows of
the language model, the same that a fill asks for, so both find each other's; the log-probabilities of the classes are
worked out of them again each time and kept nowhere. Who gives them is not the language model alone: other words, or
another question, make other numbers of the same token ids. So such a teacher has an identity of its own.

It is asked by texts: token ids do not say what a label adds to them.

Shapes: C labels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from cache import SignalRecord, SignalRequest
from cache.protocols import Failure
from cache.records import ScoreRequest, TeacherRecord
from cache.signals import Signal, signal_key
from teacher_server.http.desk import Desk
from teacher_server.http.sequence_desk import SequenceDesk
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.texts import TextError
from teacher_server.requests import Asked

UNLIMITED_TOKENS = 2**62
"""What waits for a language model is counted where its labels are asked for."""


@dataclass(frozen=True, slots=True)
class LabelRequest(SignalRequest):
    """The question, and what each label adds to it (`label_ids`, C of them)."""

    label_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def scores(self) -> list[ScoreRequest]:
        """What the language model is asked, in the order of the labels."""
        return [ScoreRequest((*self.token_ids, *ids), len(self.token_ids)) for ids in self.label_ids]


@dataclass(frozen=True, slots=True)
class LabelledText(ReadText):
    """A text as the question that the language model is asked about it."""

    label_ids: tuple[tuple[int, ...], ...] = ()

    def asks(self, signal: Signal) -> LabelRequest:
        """See `ReadText`."""
        return LabelRequest(self.token_ids, self.split, signal, self.label_ids)


@dataclass(frozen=True, slots=True, eq=False)
class LabelRecord(SignalRecord):
    """Log-probabilities of the classes [1, C], and how many tokens the language model read for them."""

    tokens_read: int = 0


@runtime_checkable
class LabelReader(Protocol):
    """How a task is put to a language model, and what its answers mean.

    `content_free` are questions about nothing, by whose answers those of texts are divided; none where they are not.
    """

    @property
    def content_free(self) -> tuple[LabelledText, ...]:
        """Questions about nothing."""
        ...

    def question(self, text: str, pair: str | None) -> LabelledText:
        """A text, or a pair of texts, as it is asked about.

        Raises:
            TextError: it cannot be.
        """
        ...

    def logprobs(
        self, answers: Sequence[TeacherRecord], *, content_free: Sequence[Sequence[TeacherRecord]]
    ) -> Float32[np.ndarray, " C"]:
        """Log-probabilities of the classes, by the scored rows of labels here and behind questions about nothing."""
        ...


class LabelTexts:
    """Texts for a `LabelReader` (see `ReadsTexts`), which many threads ask: it is used by one of them at a time."""

    def __init__(self, reader: LabelReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()

    def text(self, text: str, pair: str | None = None) -> LabelledText:
        """See `ReadsTexts`."""
        with self._lock:
            return self._reader.question(text, pair)

    def words(self, words: Sequence[str]) -> NoReturn:
        """See `ReadsTexts`: it tells no tags."""
        raise TextError("the teacher gives the class of a text: ask about text, not words")

    def ids(self, token_ids: tuple[int, ...], split: int | None) -> NoReturn:
        """See `ReadsTexts`."""
        raise TextError("the teacher answers in words: ask about text, not token_ids")


class LabelDesk(Desk[SignalRequest, SignalRecord]):
    """Classes of texts, by what a language model behind `sequences` says; what it says is kept there."""

    def __init__(self, sequences: SequenceDesk, reader: LabelReader, *, identity: str) -> None:
        """`identity` is the digest of who gives the classes; rows are asked for with `most_k` of the sequences."""
        super().__init__(sequences.cache, sequences.terms)
        self._k = sequences.terms.most_k
        sequences.terms = replace(sequences.terms, most_waiting_tokens=UNLIMITED_TOKENS)
        self._sequences, self._reader, self._identity = sequences, reader, identity
        self._free = [each.asks(Signal("class_logits")) for each in reader.content_free]

    @property
    def writing_fails(self) -> bool:
        """See `Desk`."""
        return self._sequences.writing_fails

    def together(self, questions: Iterable[SignalRequest]) -> list[tuple[SignalRequest, ...]]:
        """See `Desk`."""
        return [(each,) for each in questions]

    def most_tokens(self, together: Sequence[SignalRequest]) -> int:
        """See `Desk`; questions about nothing are asked once, and not counted."""
        return self._sequences.cost(each for request in together for each in self._scores(_labelled(request)))

    def tokens(self, records: Iterable[SignalRecord]) -> int:
        """See `Desk`."""
        return sum(record.tokens_read for record in records if isinstance(record, LabelRecord))

    def request(self, question: SignalRequest) -> SignalRequest:
        """See `Desk`."""
        return question

    def find(self, questions: Sequence[SignalRequest]) -> list[SignalRecord | None]:
        """See `Desk`."""
        requests = [*map(_labelled, questions), *self._free]
        held = iter(self._sequences.find([each for request in requests for each in self._scores(request)]))
        answers = [[next(held) for _ in request.label_ids] for request in requests]
        free = answers[len(questions) :]
        return [
            None if None in said or any(None in each for each in free) else self._record(request, said, free)
            for request, said in zip(requests[: len(questions)], answers, strict=False)
        ]

    async def commit(self) -> None:
        """See `Desk`: what the language model said is written, and that is all."""
        await self._sequences.commit()
        await super().commit()

    async def close(self) -> None:
        """See `Desk`."""
        await super().close()
        await self._sequences.close()

    async def _asked(self, together: tuple[SignalRequest, ...]) -> dict[SignalRequest, SignalRecord | Failure]:
        [request] = together
        requests = [_labelled(request), *self._free]
        replies = iter(await self._sequences.answer([each for one in requests for each in self._scores(one)]))
        said, *free = [[next(replies).outcome for _ in one.label_ids] for one in requests]
        for outcome in said:
            if isinstance(outcome, Failure):
                return {request: outcome}
        answered = [each for each in free if not any(isinstance(outcome, Failure) for outcome in each)]
        if free and not answered:
            return {request: Failure("none of the questions without content was answered, by which it is calibrated")}
        return {request: self._record(requests[0], said, answered)}

    def _record(
        self,
        request: LabelRequest,
        said: Sequence[TeacherRecord | Failure | None],
        free: Sequence[Sequence[TeacherRecord | Failure | None]],
    ) -> LabelRecord:
        values = self._reader.logprobs(_all_there(said), content_free=[_all_there(each) for each in free])
        return LabelRecord(
            signal_key(self._identity, request),
            np.array(request.token_ids, dtype=np.int32),
            request.split,
            request.signal,
            values[None].astype(np.float32),
            sum(len(each.token_ids) for each in request.scores),
        )

    def _scores(self, request: LabelRequest) -> list[Asked]:
        return [Asked(each, self._k) for each in request.scores]

    def _write(self, fresh: Mapping[SignalRequest, SignalRecord]) -> None:
        """Nothing: it is worked out again."""


def _labelled(request: SignalRequest) -> LabelRequest:
    assert isinstance(request, LabelRequest), "its texts are read by `LabelTexts`"
    return request


def _all_there(said: Sequence[TeacherRecord | Failure | None]) -> list[TeacherRecord]:
    return [each for each in said if isinstance(each, TeacherRecord)]
