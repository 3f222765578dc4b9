"""A teacher behind a door as a `SequenceSource`: what a pipeline, a trainer on another machine or a notebook asks.

Who the teacher is, the door says, and every answer is held against it: one that comes from another teacher is an
error, and keys are computed here from the tokens that came. Bodies are binary (`wire`), connections are kept
(`connection`), and several batches are under way at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import numpy as np

from cache.identity import Identity
from cache.protocols import QUOTED, Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from teacher_server.batching import Batches
from teacher_server.http.connection import SPLIT_BY, DoorClient, DoorSettings
from teacher_server.http.wire import WireError, decode_records
from teacher_server.insisting import Refused
from teacher_server.requests import Asked, refusal

AGREE_NATS = 0.25
"""How far a token's own log-probability may lie from its entry in the row: what the coarsest encoding rounds (1/32) and
the constant that makes a row sum to one, with room. Rows that were shifted differ by nats."""

CAPPED_NATS = 15.0
"""Entries this far below the first of their row may be capped by the encoding, and say only that they are no more."""


@dataclass(frozen=True, slots=True)
class DoorTeacher:
    """What the door says of a teacher. V is `vocab`; more than `most_k` log-probabilities it does not give.

    `vocab_sha256` (hex) is over which token every id means; None where the door does not know.
    """

    name: str
    identity: Identity
    vocab: int
    most_k: int
    max_model_len: int
    stop_ids: tuple[int, ...]
    licence: str | None
    vocab_sha256: str | None = None


class HttpTeacher(DoorClient):
    """A teacher behind a door. Close it, or use it as a context.

    Raises:
        EngineError: the door cannot be reached within its budget, lets nobody in with this token, or lacks the teacher;
            or the token would leave this machine unencrypted.
    """

    def __init__(self, settings: DoorSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings, transport=transport)
        self.facts = self._told("teachers", _facts)
        self.identity = self.facts.identity
        self._digest = self.identity.digest()

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """See `SequenceSource.generate`; equal requests of any client are asked once.

        Raises:
            EngineError: `k` is more than the door gives, another teacher answers, or the budget is used up.
        """
        self._require_k(k, least=0)
        return self._each(requests, k=k)

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """See `SequenceSource.score`; it raises the same errors as `generate`."""
        self._require_k(k, least=1)
        return self._each(requests, k=k)

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Requests of both kinds side by side; yields what each batch has brought. See `VllmEngine.work`.

        Raises:
            EngineError: as `generate`.
        """
        settings = self._settings
        batches = Batches(self._ask, self._refusal, settings.batch_rows, settings.batches, let_go=self._door.let_go)
        return batches.work(asked)

    def _each(self, requests: Iterable[GenerateRequest | ScoreRequest], *, k: int) -> Iterator[Outcome]:
        with closing(self.work(Asked(request, k) for request in requests)) as steps:
            for finished in steps:
                yield from finished

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self.facts.most_k:
            raise EngineError(f"k={k} is outside {least}..{self.facts.most_k}, what this door gives")

    def _refusal(self, asked: Asked) -> str | None:
        """Why this teacher cannot answer a request, as far as it can be told without asking the door."""
        return refusal(asked.request, vocab=self.facts.vocab, max_model_len=self.facts.max_model_len)

    def _ask(self, batch: Sequence[Asked]) -> list[TeacherRecord | Failure]:
        """The answers to requests of one kind and one k. A row that the door refuses fails alone."""
        scores = isinstance(batch[0].request, ScoreRequest)
        body = {
            "teacher": self.facts.name,
            "k": batch[0].k,
            "requests": [_plain(each.request) for each in batch],
        }
        try:
            answer = self._door.post("/v1/score" if scores else "/v1/generate", body)
        except Refused as error:
            if error.status not in SPLIT_BY:
                raise
            if len(batch) == 1:
                return [Failure(f"the server refused the request{QUOTED}{error}")]
            half = len(batch) // 2
            return self._ask(batch[:half]) + self._ask(batch[half:])
        rows = [each.outcome for each in decode_records(answer, identity=self._digest, vocab=self.facts.vocab)]
        if len(rows) != len(batch) or not all(map(_belongs, batch, rows)):
            raise WireError(f"{len(rows)} answers that do not belong to the {len(batch)} requests of their batch")
        for row in rows:
            if isinstance(row, TeacherRecord):
                _require_agreement(row)
        return rows


def _facts(said: Mapping[str, Any], identity: Identity) -> DoorTeacher:
    return DoorTeacher(
        name=said["name"],
        identity=identity,
        vocab=int(said["vocab"]),
        most_k=int(said["most_k"]),
        max_model_len=int(said["max_model_len"]),
        stop_ids=tuple(said["stop_ids"]),
        licence=said["licence"],
        vocab_sha256=said.get("vocab_sha256"),
    )


def _plain(request: GenerateRequest | ScoreRequest) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(request).items()}


def _belongs(asked: Asked, outcome: TeacherRecord | Failure) -> bool:
    """Whether an answer is one to this request: its tokens begin as they must, and it has what was asked for."""
    if isinstance(outcome, Failure):
        return True
    request, tokens = asked.request, tuple(outcome.token_ids.tolist())
    if outcome.k != asked.k:
        return False
    if isinstance(request, ScoreRequest):
        return (tokens, outcome.prompt_len) == (request.token_ids, request.prompt_len)
    beginning = request.prompt_ids
    return tokens[: len(beginning)] == beginning and 0 < outcome.response_len <= request.max_new_tokens


def _require_agreement(record: TeacherRecord) -> None:
    """Refuse a record of which a token and its row contradict each other: rows were mixed up.

    Raises:
        WireError: they do.
    """
    if record.topk_ids is None or not record.response_len:
        return
    assert record.topk_logprobs is not None and record.target_logprobs is not None
    rows, named = record.topk_logprobs, record.topk_ids == record.response_ids[:, None]
    found = named.any(axis=1)
    # A token that the row does not name is no likelier than its last one.
    said = np.where(found, rows[np.arange(len(rows)), named.argmax(axis=1)], rows[:, -1])
    capped = said < rows[:, 0] - CAPPED_NATS
    above = record.target_logprobs > said + AGREE_NATS
    below = found & ~capped & (record.target_logprobs < said - AGREE_NATS)
    if (above | below).any():
        at = int(np.flatnonzero(above | below)[0])
        raise WireError(f"log-probabilities that are not those of their tokens, at response token {at}")
