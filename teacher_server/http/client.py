"""A teacher behind a door as a `SequenceSource`: what a pipeline, a trainer on another machine or a notebook asks.

Who the teacher is, the door says, and every answer is held against it: one that comes from another teacher is an
error, and keys are computed here from the tokens that came. Bodies are binary (`wire`), connections are kept, and
several batches are under way at once. What may pass by itself (a door that is busy, restarts or cannot be reached) is
tried again within `budget_s`; what was answered before a break is in the door's cache, so whoever asks again pays
nothing for it.

The token goes into one header and nowhere else: no message, log or representation has it, and over plain HTTP it never
leaves this machine.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from cache.identity import Identity, parse_identity
from cache.protocols import QUOTED, Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from configs.serving import is_loopback
from teacher_server.batching import Batches
from teacher_server.http.wire import MEDIA_TYPE, WireError, decode_records
from teacher_server.insisting import Refused, certificates, insist, retry_after_s
from teacher_server.requests import Asked, refusal

SPLIT_BY = frozenset({413, 422})
"""Statuses of a body that asks for too much or for something wrong: of a batch, one row may be to blame."""

AGREE_NATS = 0.25
"""How far a token's own log-probability may lie from its entry in the row: what the coarsest encoding rounds (1/32) and
the constant that makes a row sum to one, with room. Rows that were shifted differ by nats."""

CAPPED_NATS = 15.0
"""Entries this far below the first of their row may be capped by the encoding, and say only that they are no more."""


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where the door is and how it is asked.

    `teacher` is its name there, needed where the door serves several. `budget_s` is how long one batch may take with
    all its tries; `timeout_s` how long a single one waits for the door to say anything. `ca_file` holds the
    certificates that the door's is held against, where the system's do not know it.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    teacher: str | None = None
    batch_rows: int = 32
    batches: int = 4
    budget_s: float = 3600.0
    timeout_s: float = 900.0
    ca_file: Path | None = None


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


class HttpTeacher:
    """A teacher behind a door. Close it, or use it as a context.

    Raises:
        EngineError: the door cannot be reached within its budget, lets nobody in with this token, or lacks the teacher;
            or the token would leave this machine unencrypted.
    """

    def __init__(self, settings: DoorSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        _require_private(settings)
        self._settings = settings
        self._let_go = threading.Event()
        headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token}"}
        self._http = httpx.Client(
            base_url=settings.url,
            headers=headers,
            timeout=httpx.Timeout(settings.timeout_s, connect=30.0),
            limits=httpx.Limits(max_connections=settings.batches, max_keepalive_connections=settings.batches),
            verify=True if settings.ca_file is None else certificates(settings.ca_file),
            transport=transport,
        )
        try:
            self.facts = self._pick(self._insist("GET", "/v1/teachers", None).json())
        except BaseException:
            self._http.close()
            raise
        self.identity = self.facts.identity
        self._digest = self.identity.digest()

    def __enter__(self) -> HttpTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Nothing under way is waited for, nor tried again; whoever waits for it stops."""
        self._let_go.set()
        self._http.close()

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
        batches = Batches(self._ask, self._refusal, settings.batch_rows, settings.batches, let_go=self._let_go)
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
            answer = self._insist("POST", "/v1/score" if scores else "/v1/generate", body)
        except Refused as error:
            if error.status not in SPLIT_BY:
                raise
            if len(batch) == 1:
                return [Failure(f"the server refused the request{QUOTED}{error}")]
            half = len(batch) // 2
            return self._ask(batch[:half]) + self._ask(batch[half:])
        rows = [each.outcome for each in decode_records(answer.content, identity=self._digest, vocab=self.facts.vocab)]
        if len(rows) != len(batch) or not all(map(_belongs, batch, rows)):
            raise WireError(f"{len(rows)} answers that do not belong to the {len(batch)} requests of their batch")
        for row in rows:
            if isinstance(row, TeacherRecord):
                _require_agreement(row)
        return rows

    def _insist(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """One answer, tried again while what is in the way may pass, within the budget.

        Raises:
            Refused: the door said no, or the budget is used up while it is busy.
            EngineError: it cannot be reached within the budget.
        """
        return insist(
            lambda: self._once(method, path, body),
            server=self._settings.url,
            budget_s=self._settings.budget_s,
            let_go=self._let_go,
        )

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        accept = "application/json" if body is None else MEDIA_TYPE
        response = self._http.request(method, path, json=body, headers={"Accept": accept})
        if response.status_code == httpx.codes.OK:
            return response
        raise Refused(
            f"the door refused {path}: {_reason(response)}",
            status=response.status_code,
            retry_after_s=retry_after_s(response),
        )

    def _pick(self, said: Any) -> DoorTeacher:
        try:
            teachers = {each["name"]: each for each in said["teachers"]}
            wanted = self._settings.teacher or (next(iter(teachers)) if len(teachers) == 1 else None)
            if wanted not in teachers:
                raise EngineError(
                    f"{self._settings.url} serves {', '.join(teachers) or 'no teacher'} and teacher={wanted} was asked "
                    "for: name one of them"
                )
            facts = teachers[wanted]
            identity = parse_identity(facts["fields"])
            if identity.digest() != facts["identity"]:
                raise EngineError(f"{self._settings.url} gives a digest of {wanted} that is not that of its identity")
            return DoorTeacher(
                name=facts["name"],
                identity=identity,
                vocab=int(facts["vocab"]),
                most_k=int(facts["most_k"]),
                max_model_len=int(facts["max_model_len"]),
                stop_ids=tuple(facts["stop_ids"]),
                licence=facts["licence"],
                vocab_sha256=facts.get("vocab_sha256"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"{self._settings.url} does not say who its teachers are as a door does: {error}"
            ) from error


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


def _require_private(settings: DoorSettings) -> None:
    """Refuse to send a token where anybody on the way could read it, and a password within the address.

    Raises:
        EngineError: naming the cure.
    """
    url = httpx.URL(settings.url)
    if url.userinfo:
        raise EngineError(f"the address of the door at {url.host} holds a user or password: give the token apart")
    if settings.token is not None and url.scheme != "https" and not is_loopback(url.host):
        raise EngineError(
            f"{settings.url} would send the token unencrypted to another machine: ask the door over https://, or over "
            "loopback (a tunnel)"
        )


def _reason(response: httpx.Response) -> str:
    """What the door says, in one line; of a stranger's page the status alone."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return " ".join(str(response.json()["error"]["reason"]).split())[:500]
    return f"status {response.status_code}"
