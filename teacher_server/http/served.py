"""What a door serves, and how a body becomes requests to it: checked as a whole before anything is asked.

Whatever the teacher could not answer anyway is refused here in one line that names the field, the value and the limit:
nothing of a request is asked where a part of it cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from teacher_server.http.desk import Desk
from teacher_server.http.refusals import Refusal
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
    """A teacher behind the door; without `texts` it is asked in token ids alone."""

    desk: Desk
    facts: TeacherFacts
    texts: Texts | None = None


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """How much one request may be.

    `most_tokens` are those that the teacher reads or writes at most, `most_numbers` the log-probabilities of the answer
    (response tokens times k, 8 bytes each). A body has to be there within `body_s`, and an answer within `request_s`.
    """

    most_rows: int = 1024
    most_tokens: int = 262_144
    most_numbers: int = 2**24
    most_body_bytes: int = 16 * 2**20
    body_s: float = 30.0
    request_s: float = 600.0


def scored_requests(body: ScoreBody, *, served: Served, limits: DoorLimits) -> list[Request]:
    """What a body asks to be scored.

    Raises:
        Refusal: 413 where it is too much, 422 where the teacher cannot answer it.
    """

    def read(row: ScoredIds | ScoredText | ScoredMessages) -> Request:
        if isinstance(row, ScoredIds):
            return ScoreRequest(tuple(row.token_ids), row.prompt_len)
        texts = _texts(served)
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
            prompt = _texts(served).prompt(row.prompt)
        else:
            prompt = _texts(served).conversation(row.messages)
        stops = served.facts.stop_ids if row.stop_ids is None else row.stop_ids
        sampled = {name: getattr(row, name) for name in _SAMPLED}
        return GenerateRequest(prompt, tuple(sorted(set(stops))), **sampled)

    return _checked(body.requests, read, k=body.k, served=served, limits=limits)


def _checked(
    rows: Sequence[Row], read: Callable[[Row], Request], *, k: int, served: Served, limits: DoorLimits
) -> list[Request]:
    most_k, vocab = served.desk.terms.most_k, served.desk.terms.vocab
    if k > most_k:
        raise Refusal(422, "k_too_large", f"k={k} is more than the {most_k} that this teacher gives")
    _require("requests", len(rows), at_most=limits.most_rows, unit="rows")
    requests: list[Request] = []
    for at, row in enumerate(rows):
        try:
            request = read(row)
        except TextError as error:
            raise Refusal(422, "invalid_text", f"requests[{at}]: {error}") from error
        reason = _foreign_stop(request, vocab=vocab) or refusal(
            request, vocab=vocab, max_model_len=served.facts.max_model_len
        )
        if reason is not None:
            raise Refusal(422, "invalid_request", f"requests[{at}]: {reason}")
        requests.append(request)
    _require("requests", sum(map(most_tokens, requests)), at_most=limits.most_tokens, unit="tokens")
    _require("k", k * sum(map(_most_response, requests)), at_most=limits.most_numbers, unit="log-probabilities")
    return requests


def _require(field: str, value: int, *, at_most: int, unit: str) -> None:
    if value > at_most:
        reason = f"{field}: {value:,} {unit} at once are more than {at_most:,}: ask for them in several requests"
        raise Refusal(413, f"too_many_{unit.replace('-', '_')}", reason)


def _texts(served: Served) -> Texts:
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
