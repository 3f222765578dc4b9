"""What a door serves, and how a body becomes requests to it: checked as a whole before anything is asked.

Whatever the teacher could not answer anyway is refused here in one line that names the field, the value and the limit:
nothing of a request is asked where a part of it cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

from cache.answers import Request
from cache.identity import Identity
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.http.bodies import (
    GenerateBody,
    Sampling,
    ScoreBody,
    ScoredIds,
    ScoredMessages,
    ScoredText,
    WrittenAfterIds,
    WrittenAfterMessages,
    WrittenAfterText,
)
from teacher_server.http.refusals import Refusal
from teacher_server.http.rules import Rules
from teacher_server.http.sequence_desk import SequenceDesk
from teacher_server.http.texts import TextError, Texts
from teacher_server.requests import most_tokens, refusal

_SAMPLED = [
    field.name for field in fields(GenerateRequest) if field.name in Sampling.model_fields.keys() - {"stop_ids"}
]

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """What is told of a teacher, beside the terms of its desk. `label` is its name for people.

    `vocab_sha256` (hex) is over which token every id means, where the tokenizer is known.
    """

    identity: Identity
    max_model_len: int
    stop_ids: tuple[int, ...]
    label: str
    vocab_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """A teacher behind the door; without `texts` it is asked in token ids alone, without `rules` about everything."""

    desk: SequenceDesk
    facts: TeacherFacts
    texts: Texts | None = None
    rules: Rules | None = None


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """How much one request may be.

    `most_tokens` are those that the teacher reads or writes at most, `most_numbers` the log-probabilities of the answer
    (response tokens times k, 8 bytes each). A body has to be there within `body_s`, and an answer within `request_s`;
    who waits for one as a stream is sent a sign of life every `keep_alive_s`.
    """

    most_rows: int = 1024
    most_tokens: int = 262_144
    most_numbers: int = 2**24
    most_body_bytes: int = 16 * 2**20
    body_s: float = 30.0
    request_s: float = 600.0
    keep_alive_s: float = 10.0


def scored_requests(body: ScoreBody, *, served: Served, limits: DoorLimits) -> list[Request]:
    """What a body asks to be scored.

    Raises:
        Refusal: 413 where it is too much, 422 where the teacher cannot answer it.
    """

    def read(row: ScoredIds | ScoredText | ScoredMessages) -> Request:
        if isinstance(row, ScoredIds):
            return ScoreRequest(tuple(row.token_ids), row.prompt_len)
        texts = require_texts(served)
        if isinstance(row, ScoredText):
            return ScoreRequest(*texts.completed(row.prompt, row.completion))
        return ScoreRequest(*texts.answered(row.messages))

    return _checked(body.requests, read, k=body.k, served=served, limits=limits)


def written_requests(body: GenerateBody, *, served: Served, limits: DoorLimits) -> list[Request]:
    """What a body asks to be written.

    Raises:
        Refusal: 413 where it is too much, 422 where the teacher cannot answer it.
    """

    def read(row: WrittenAfterIds | WrittenAfterText | WrittenAfterMessages) -> Request:
        if isinstance(row, WrittenAfterIds):
            prompt = tuple(row.prompt_ids)
        elif isinstance(row, WrittenAfterText):
            prompt = require_texts(served).prompt(row.prompt)
        else:
            prompt = require_texts(served).conversation(row.messages)
        stops = served.facts.stop_ids if row.stop_ids is None else row.stop_ids
        sampled = {name: getattr(row, name) for name in _SAMPLED}
        return GenerateRequest(prompt, tuple(sorted(set(stops))), **sampled)

    return _checked(body.requests, read, k=body.k, served=served, limits=limits)


def _checked(
    rows: Sequence[Row], read: Callable[[Row], Request], *, k: int, served: Served, limits: DoorLimits
) -> list[Request]:
    require_k(k, served=served, field="k")
    require_at_most("requests", len(rows), at_most=limits.most_rows, unit="rows")
    requests: list[Request] = []
    for at, row in enumerate(rows):
        with reading_texts(f"requests[{at}]"):
            request = read(row)
        require_answerable(request, served=served, place=f"requests[{at}]")
        requests.append(request)
    require_fitting(requests, k=k, limits=limits)
    return requests


def require_k(k: int, *, served: Served, field: str) -> None:
    """Refuse more log-probabilities than the teacher gives; `field` is where they are asked for.

    Raises:
        Refusal: 422.
    """
    most = served.desk.terms.most_k
    if k > most:
        raise Refusal(422, "k_too_large", f"{field}={k} is more than the {most} that this teacher gives", param=field)


def require_answerable(request: Request, *, served: Served, place: str) -> None:
    """Refuse a request that the teacher cannot answer; `place` is where it stands in its body.

    Raises:
        Refusal: 422.
    """
    vocab = served.desk.terms.vocab
    reason = _foreign_stop(request, vocab=vocab) or refusal(
        request, vocab=vocab, max_model_len=served.facts.max_model_len
    )
    if reason is not None:
        raise Refusal(422, "invalid_request", f"{place}: {reason}", param=place)


def require_fitting(
    requests: Sequence[Request], *, k: int, limits: DoorLimits, rows: str = "requests", k_field: str = "k"
) -> None:
    """Refuse what is too much at once; `rows` and `k_field` are where the requests and their k stand.

    Raises:
        Refusal: 413.
    """
    require_at_most(rows, sum(map(most_tokens, requests)), at_most=limits.most_tokens, unit="tokens")
    numbers = k * sum(map(_most_response, requests))
    require_at_most(k_field, numbers, at_most=limits.most_numbers, unit="log-probabilities")


def require_at_most(field: str, value: int, *, at_most: int, unit: str) -> None:
    """Refuse too much of something.

    Raises:
        Refusal: 413.
    """
    if value > at_most:
        reason = f"{field}: {value:,} {unit} at once are more than {at_most:,}: ask for them in several requests"
        raise Refusal(413, f"too_many_{unit.replace('-', '_')}", reason, param=field)


@contextmanager
def reading_texts(place: str) -> Iterator[None]:
    """For reading the texts of a body at this place.

    Raises:
        Refusal: 422, one cannot become tokens.
    """
    try:
        yield
    except TextError as error:
        raise Refusal(422, "invalid_text", f"{place}: {error}", param=place) from error


def require_texts(served: Served) -> Texts:
    """The tokenizer of a teacher.

    Raises:
        TextError: it is not here.
    """
    if served.texts is None:
        raise TextError("the tokenizer of this teacher is not here: give token ids")
    return served.texts


def _foreign_stop(request: Request, *, vocab: int) -> str | None:
    if isinstance(request, ScoreRequest) or not request.stop_ids or request.stop_ids[-1] < vocab:
        return None
    return f"stop id {request.stop_ids[-1]} is outside the vocabulary of {vocab}"


def _most_response(request: Request) -> int:
    """Response tokens of an answer at most."""
    if isinstance(request, GenerateRequest):
        return request.max_new_tokens
    return len(request.token_ids) - request.prompt_len
